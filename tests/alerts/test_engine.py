import random
from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from spikewatch.alerts.engine import Engine
from spikewatch.alerts.machine import NO_TRANSITIONS
from spikewatch.alerts.rule import Rule
from spikewatch.errors import RuleError
from spikewatch.metrics import RECORDS
from spikewatch.metrics.wide import COLUMNS


T, F, U = True, False, None  # the condition holds, does not, is not known


def rows(verdicts, *, layer="lif", phase="train", first_step=0):
    """Rows for which `saturated_frac > 0.5` is what `verdicts` say; n_neurons is always known."""
    n = len(verdicts)
    figures = [None if v is None else float(v) for v in verdicts]
    data = {
        "run": ["r"] * n,
        "rank": [0] * n,
        "phase": [phase] * n,
        "step": list(range(first_step, first_step + n)),
        "layer": [layer] * n,
        "n_neurons": [5] * n,
        "saturated_frac": figures,
    }
    frame = pl.DataFrame(data, schema_overrides={"saturated_frac": pl.Float64})
    missing = [pl.lit(None, dtype=t).alias(c) for c, t in COLUMNS.items() if c not in data]
    return frame.with_columns(missing).select(pl.col(c).cast(t) for c, t in COLUMNS.items())


def make(**more):
    return Rule(name="x", expr="saturated_frac > 0.5", **more)


def states(verdicts, **more):
    engine = Engine([make(**more)], run="r", rank=0)
    out = engine.feed(rows(verdicts))
    return list(zip(out["step"], out["state"], out["since_step"], strict=True))


def test_the_states_of_an_illness_that_comes_and_goes():
    assert states([U, F, F, T, T, T, T, F, F], for_steps=3) == [
        (0, "unknown", None),
        (1, "ok", None),
        (3, "pending", 3),
        (5, "firing", 3),
        (7, "resolved", 3),
    ]


def test_without_for_it_fires_at_once():
    assert states([T]) == [(0, "firing", 0)]


def test_what_does_not_last_never_fires():
    assert states([F, T, T, F, T, T, F], for_steps=3) == [
        (0, "ok", None),
        (1, "pending", 1),
        (3, "ok", None),
        (4, "pending", 4),
        (6, "ok", None),
    ]


def test_unknown_neither_starts_nor_interrupts_nor_ends():
    assert states([U, T, U, T, U, U, F], for_steps=2) == [
        (0, "unknown", None),
        (1, "pending", 1),
        (3, "firing", 1),
        (6, "resolved", 1),
    ]


def test_an_alert_can_come_back():
    assert [s for _, s, _ in states([T, F, T, F])] == ["firing", "resolved"] * 2


def test_firing_ends_only_when_clear_holds():
    engine = Engine([make(clear="mfr < 0.1")], run="r", rank=0)
    frame = rows([T, F, F, F]).with_columns(mfr=pl.Series([0.5, 0.5, None, 0.0]))
    assert engine.feed(frame).select("step", "state").rows() == [(0, "firing"), (3, "resolved")]


def test_keep_firing_for_counts_steps_and_begins_anew():
    assert [s[:2] for s in states([T, F, F, T, F, F, F], keep_firing_for=2)] == [
        (0, "firing"),
        (6, "resolved"),
    ]


def test_before_after_step_a_rule_is_unknown():
    assert [s[:2] for s in states([T, F, T, T], after_step=2)] == [(0, "unknown"), (2, "firing")]


def test_a_rule_has_no_state_on_a_layer_that_it_is_not_about():
    engine = Engine([Rule(name="x", expr="COALESCE(delta, 0) > 1")], run="r", rank=0)
    assert engine.feed(rows([T, F])).is_empty()


def test_a_figure_that_is_asked_with_a_default_makes_no_rule_be_about_a_layer():
    modified = "delta > 1 AND COALESCE(n_neurons, 1) > 0"
    engine = Engine([Rule(name="x", expr=modified)], run="r", rank=0)
    assert engine.feed(rows([T, F])).is_empty()  # n_neurons is known, delta never


def test_a_layer_that_gets_its_figures_later_gets_a_state_then():
    engine = Engine([Rule(name="x", expr="COALESCE(delta, 0) > 1")], run="r", rank=0)
    engine.feed(rows([T, F]))
    later = rows([T], first_step=2).with_columns(delta=pl.lit(2.0))
    assert engine.feed(later)["state"].to_list() == ["firing"]


def test_layers_phases_and_rules_have_states_of_their_own():
    rules = [make(phase="any", layers=("lif*",)), Rule(name="y", expr="n_neurons > 1")]
    engine = Engine(rules, run="r", rank=3)
    frame = pl.concat([rows([T], layer="lif1"), rows([F], layer="lif2"), rows([T], layer="fc")])
    evaluation = rows([F], layer="lif1", phase="eval")
    out = engine.feed(pl.concat([frame, evaluation]))
    found = set(out.select("rule", "phase", "layer", "state").rows())
    assert found == {
        ("x", "train", "lif1", "firing"),
        ("x", "train", "lif2", "ok"),
        ("x", "eval", "lif1", "ok"),
        *(("y", "train", layer, "firing") for layer in ("lif1", "lif2", "fc")),
    }
    assert out["rank"].unique().to_list() == [3]


def test_a_row_holds_the_figure_and_its_words_while_the_layer_is_ill():
    more = {"summary": "s", "likely": "l", "advice": "a", "severity": "critical"}
    engine = Engine([make(**more)], run="r", rank=0)
    out = engine.feed(rows([F, T, F]))
    assert out.schema == RECORDS["alerts"]
    shown = ["severity", "metric", "value", "summary", "likely", "advice"]
    assert out.select(shown).rows() == [
        ("critical", "saturated_frac", 0.0, None, None, None),
        ("critical", "saturated_frac", 1.0, "s", "l", "a"),
        ("critical", "saturated_frac", 0.0, None, None, None),
    ]


def test_without_rules_or_rows_there_are_no_transitions():
    assert Engine([], run="r", rank=0).feed(rows([T])).is_empty()
    assert Engine([make()], run="r", rank=0).feed(rows([])).is_empty()


def test_while_nothing_comes_in_the_writer_makes_no_frames():
    """It asks every second; making a frame each time took the whole budget of short steps."""
    engine = Engine([make()], run="r", rank=0)
    at = datetime(2026, 1, 1)
    engine.feed(rows([T, T]).with_columns(pl.lit(at, COLUMNS["at"]).alias("at")))
    assert engine.feed_tables({}) is engine.tick(at + timedelta(seconds=1)) is NO_TRANSITIONS


def test_a_rule_made_by_hand_that_cannot_be_replayed_is_refused():
    with pytest.raises(RuleError, match="DuckDB"):
        Engine([Rule(name="x", expr="mfr > AVG(mfr)")], run="r", rank=0)


VERDICTS = st.lists(st.sampled_from([T, F, U]), max_size=40)


@settings(deadline=None)  # machines are busy
@given(VERDICTS, st.integers(1, 4), st.integers(0, 3), st.integers(0, 5), st.randoms())
def test_fed_in_pieces_is_fed_at_once(verdicts, for_steps, keep, after, dice: random.Random):
    rule = make(for_steps=for_steps, keep_firing_for=keep, after_step=after)
    layers = pl.concat([rows(verdicts), rows(verdicts[::-1], layer="lif2")]).sort("step", "layer")
    whole = Engine([rule], run="r", rank=0).feed(layers)
    engine, begin, parts = Engine([rule], run="r", rank=0), 0, []
    while begin < layers.height:
        size = dice.randint(1, 9)
        parts.append(engine.feed(layers[begin : begin + size]))
        begin += size
    assert pl.concat([whole.clear(), *parts]).equals(whole)


@settings(deadline=None)
@given(VERDICTS, st.integers(1, 4))
def test_firing_needs_as_many_in_a_row_as_the_rule_says_and_no_more(verdicts, for_steps):
    fired = [
        (step, since) for step, s, since in states(verdicts, for_steps=for_steps) if s == "firing"
    ]
    expected, streak = [], []
    for step, verdict in enumerate(verdicts):
        if verdict is not None:
            streak = [*streak, step] if verdict else []
            if verdict and len(streak) == for_steps:
                expected.append((step, streak[0]))
    assert fired == expected


@settings(deadline=None)
@given(st.lists(st.sampled_from([F, U]), max_size=20))
def test_nothing_fires_without_the_condition(verdicts):
    assert {s for _, s, _ in states(verdicts)} <= {"unknown", "ok"}
