import math
import statistics

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from spikewatch.alerts.engine import Engine
from spikewatch.alerts.expression import parse
from spikewatch.alerts.functions import FUNCTIONS
from spikewatch.alerts.history import History, rewrite
from spikewatch.alerts.rule import Rule
from spikewatch.alerts.vocabulary import COLUMNS
from spikewatch.errors import RuleError


def rows(values, *, layer="lif", every=1):
    n = len(values)
    frame = pl.DataFrame(
        {
            "phase": ["train"] * n,
            "step": [every * i for i in range(n)],
            "layer": [layer] * n,
            "mfr": values,
        },
        schema_overrides={"mfr": pl.Float64},
    )
    missing = [pl.lit(None, t).alias(c) for c, t in COLUMNS.items() if c not in frame.columns]
    return frame.with_columns(missing).select(pl.col(c).cast(t) for c, t in COLUMNS.items())


def ask(call, values, *, after_step=0, every=1):
    plain, lookbacks = rewrite(call, after_step=after_step)
    frame = History(lookbacks).extend(rows(values, every=every))
    return frame[plain.strip('"')].to_list()


@pytest.mark.parametrize(
    ("call", "values", "expected"),
    [
        ("avg_over(mfr, 3)", [1, 2, 6, 1], [None, None, 3.0, 3.0]),
        ("min_over(mfr, 2)", [3, 1, 2], [None, 1.0, 1.0]),
        ("max_over(mfr, 2)", [3, 1, 2], [None, 3.0, 2.0]),
        ("std_over(mfr, 3)", [1, 2, 3], [None, None, 1.0]),
        ("slope(mfr, 3)", [0, 0, 3], [None, None, 1.5]),
        ("ago(mfr, 2)", [5, 6, 7, 8], [None, None, 5.0, 6.0]),
        ("overdue(mfr, 4)", [0, 0, 2, 0, 0, 0, 0], [1, 2, 0, 0.5, 2, 3, 4]),
        ("baseline(mfr, 3)", [5, 1, 2, 9, 9], [None, None, 2.0, 2.0, 2.0]),
    ],
)
def test_each_function_against_a_case_by_hand(call, values, expected):
    assert ask(call, values) == expected


def test_each_function_is_tried():
    assert len(FUNCTIONS) == 8


def test_slope_is_per_training_step_and_not_per_window():
    assert ask("slope(mfr, 2)", [0, 10], every=5)[-1] == 2.0


def test_what_never_changes_has_a_slope_of_exactly_zero():
    assert ask("slope(mfr, 3)", [0.1] * 4) == [None, None, 0.0, 0.0]


def test_a_baseline_begins_after_the_warm_up():
    assert ask("baseline(mfr, 2)", [9, 9, 1, 3, 7], after_step=2) == [None, None, None, 2.0, 2.0]


def test_what_is_not_known_or_not_finite_is_passed_over_and_gets_no_verdict():
    values = [1, None, math.nan, 3, math.inf, 5]
    assert ask("avg_over(mfr, 2)", values) == [None, None, None, 2.0, None, 4.0]


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=30), st.integers(2, 6))
def test_functions_agree_with_the_standard_library(values, n):
    for i, (mean, std, slope) in enumerate(
        zip(
            *(ask(f"{f}(mfr, {n})", values) for f in ("avg_over", "std_over", "slope")), strict=True
        )
    ):
        if i < n - 1:
            assert mean is std is slope is None
            continue
        window = values[i - n + 1 : i + 1]
        assert mean == pytest.approx(statistics.fmean(window), abs=1e-6)
        assert std == pytest.approx(statistics.stdev(window), abs=1e-4)
        expected = statistics.linear_regression(range(n), window).slope
        assert slope == pytest.approx(expected, abs=1e-4)


def test_memory_is_bounded_by_the_window():
    _, lookbacks = rewrite("avg_over(mfr, 4) > 1 AND baseline(mfr) > 1")
    history = History(lookbacks)
    for _ in range(50):
        history.extend(rows([0.1] * 10))
    of_layers = [memory for some in history._memories.values() for memory in some.values()]
    assert max(len(memory.points) for memory in of_layers) <= 4


@pytest.mark.parametrize(
    ("expr", "told"),
    [
        ("avg_over(mfr) > 1", "Write avg_over(x, n)"),
        ("avg_over(mfr * 2, 3) > 1", "cannot be read"),
        ("avg_over(mfr, many) > 1", "cannot be read"),
        ("avg_over(mfr, 1) > 1", "2 to 1000"),
        ("avg_over(mfr, 5000) > 1", "2 to 1000"),
        ("avg_over(mrf, 3) > 1", "Did you mean 'mfr'"),
        ("avg_over(layer, 3) > 1", "is no figure"),
        ("basline(mfr) > 1", "Did you mean baseline(x)"),
        ("baseline(mfr)", "not a condition"),
    ],
)
def test_a_mistake_in_a_call_is_told(expr, told):
    with pytest.raises(RuleError) as caught:
        parse(expr)
    assert told in str(caught.value)


def test_texts_and_comments_are_not_calls():
    condition = parse("mfr > 0 AND layer <> 'slope(mfr, 3)' -- slope(mfr, 3)\n")
    assert condition.lookbacks == ()


def test_a_rule_about_change_judges_each_layer_by_its_own_normal():
    rule = Rule(name="halved", expr="mfr < 0.5 * baseline(mfr, 3)")
    engine = Engine([rule], run="r", rank=0)
    falls, low = rows([0.4, 0.4, 0.4, 0.1]), rows([0.1] * 4, layer="low")
    out = engine.feed(pl.concat([falls, low]))
    assert out.filter(state="firing").select("layer", "step", "value").rows() == [("lif", 3, 0.1)]
    assert out.filter(layer="low")["state"].to_list() == ["unknown", "ok"]
