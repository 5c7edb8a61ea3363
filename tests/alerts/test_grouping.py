import random
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from spikewatch.alerts.engine import Engine
from spikewatch.alerts.grouping import GRACE_STEPS
from spikewatch.alerts.loading import load_rules
from spikewatch.alerts.rule import Rule
from spikewatch.alerts.vocabulary import COLUMNS

from .conftest import NOON


N_LAYERS = 4
PLACES = [(f"lif{i}", i, "spiking") for i in range(N_LAYERS)]


def rows(figures, *, first_step=0):
    """`figures[step][layer]` is the value of `mfr`; None is no row."""
    data = [
        {"phase": "train", "step": first_step + s, "layer": f"lif{i}", "mfr": y,
         "at": NOON + timedelta(seconds=first_step + s)}
        for s, step in enumerate(figures) for i, y in enumerate(step)
    ]  # fmt: skip
    frame = pl.DataFrame(data, schema_overrides={"mfr": pl.Float64})
    missing = [pl.lit(None, t).alias(c) for c, t in COLUMNS.items() if c not in frame.columns]
    return frame.with_columns(missing).select(pl.col(c).cast(t) for c, t in COLUMNS.items())


def engine_of(*rules):
    engine = Engine(rules, run="r", rank=0)
    engine.place(PLACES)
    return engine


def told(out):
    shown = ["step", "layer", "rule", "state", "root_layer", "n_following"]
    return out.filter(pl.col("state").is_in(["firing", "resolved"])).select(shown).rows()


DEAD = Rule(name="dead", expr="mfr = 0", follows={"before": ["dead", "nan"]})
WELL, ILL = [0.5] * 4, [0.5, 0, 0, 0]


def test_the_first_dead_layer_is_the_root_and_the_others_are_folded_under_it():
    assert told(engine_of(DEAD).feed(rows([WELL, ILL]))) == [
        (1, "lif1", "dead", "firing", None, 2),
        (1, "lif2", "dead", "firing", "lif1", None),
        (1, "lif3", "dead", "firing", "lif1", None),
    ]


def test_a_cause_that_fires_later_takes_over_what_it_explains():
    out = engine_of(DEAD).feed(rows([[0.5, 0.5, 0, 0.5], [0, 0.5, 0, 0.5]]))
    assert told(out) == [
        (0, "lif2", "dead", "firing", None, 0),
        (1, "lif0", "dead", "firing", None, 1),
        (1, "lif2", "dead", "firing", "lif0", None),
    ]


def test_a_pending_cause_holds_its_consequences_back_and_lets_them_go_when_it_comes_to_nothing():
    slow = Rule(name="nan", expr="mfr < 0", for_steps=3)
    hurt = [-1, 0.5, 0.5, 0]
    out = engine_of(DEAD, slow).feed(rows([WELL, hurt, hurt, [0.5, 0.5, 0.5, 0]]))
    assert [r for r in told(out) if r[1] == "lif3"] == [
        (1, "lif3", "dead", "firing", "lif0", None),
        (3, "lif3", "dead", "firing", None, 0),
    ]


def test_an_alert_told_late_says_the_figure_that_it_fired_with():
    cause = Rule(name="nan", expr="mfr < 0")
    dead = Rule(name="dead", expr="mfr = 0", keep_firing_for=90, follows={"before": ["nan"]})
    well = [[0.5] * 4] * (GRACE_STEPS + 2)
    out = engine_of(dead, cause).feed(rows([[-1, 0.5, 0.5, 0], *well])).filter(rule="dead")
    late = out.filter(pl.col("root_rule").is_null(), state="firing")
    assert late.select("layer", "value").rows() == [("lif3", 0.0)]


def test_what_outlives_its_cause_by_the_grace_is_an_illness_of_its_own():
    still = [[0.5, 0.5, 0.5, 0]] * (GRACE_STEPS + 3)
    out = engine_of(DEAD).feed(rows([[0, 0.5, 0.5, 0], *still]))
    assert told(out) == [
        (0, "lif0", "dead", "firing", None, 1),
        (0, "lif3", "dead", "firing", "lif0", None),
        (1, "lif0", "dead", "resolved", None, None),
        (GRACE_STEPS + 1, "lif3", "dead", "firing", None, 0),
    ]


def test_what_ends_with_its_cause_is_never_told():
    out = engine_of(DEAD).feed(rows([[0, 0, 0.5, 0.5], [0.5, 0, 0.5, 0.5], WELL]))
    assert told(out)[-1] == (2, "lif1", "dead", "resolved", "lif0", None)


def test_behind_here_and_anywhere_say_where_a_cause_may_be():
    cause = Rule(name="cause", expr="mfr > 2", layers=("lif2",))
    for place, folded in {
        "behind": {"lif0", "lif1"},
        "before": {"lif3"},
        "here": {"lif2"},
        "anywhere": {"lif0", "lif1", "lif2", "lif3"},
    }.items():
        effect = Rule(name="effect", expr="mfr > 1", follows={place: ["cause"]})
        out = engine_of(cause, effect).feed(rows([[1.5, 1.5, 3, 1.5]]))
        found = out.filter(pl.col("root_rule") == "cause")
        assert set(found["layer"]) == folded, place


def test_the_cause_of_the_cause_is_the_root():
    a = Rule(name="a", expr="mfr > 3")
    b = Rule(name="b", expr="mfr > 2", follows={"here": ["a"]})
    c = Rule(name="c", expr="mfr > 1", follows={"here": ["b"]})
    out = engine_of(c, b, a).feed(rows([[4, 0, 0, 0]]))
    assert out.filter(state="firing").select("rule", "root_rule", "n_following").rows() == [
        ("c", "a", None),
        ("b", "a", None),
        ("a", None, 2),
    ]


def test_rules_that_follow_from_each_other_still_have_a_root():
    a = Rule(name="a", expr="mfr > 1", follows={"here": ["b"]})
    b = Rule(name="b", expr="mfr > 1", follows={"here": ["a"]})
    out = engine_of(a, b).feed(rows([[4, 0, 0, 0]])).filter(state="firing")
    assert out["root_rule"].null_count() == 1


def test_a_cause_anywhere_that_began_at_the_same_step_counts_whichever_rule_stands_first():
    effect = Rule(name="effect", expr="mfr > 1", follows={"anywhere": ["cause"]})
    cause = Rule(name="cause", expr="mfr > 2")
    for rules in ((effect, cause), (cause, effect)):
        out = engine_of(*rules).feed(rows([[3, 0, 1.5, 0]])).filter(state="firing")
        assert set(out.filter(rule="effect")["root_rule"]) == {"cause"}


def test_phases_do_not_explain_each_other():
    anyone = Rule(name="dead", expr="mfr <= 0", phase="any", follows={"before": ["dead"]})
    frame = rows([ILL]).with_columns(
        phase=pl.when(pl.col("layer") == "lif1").then(pl.lit("eval")).otherwise("phase")
    )
    out = engine_of(anyone).feed(frame).filter(state="firing")
    assert dict(out.select("layer", "root_layer").rows())["lif2"] is None


def test_a_dead_first_layer_brings_one_alert_by_the_shipped_rules(wide):
    engine = Engine(load_rules(), run="r", rank=0)
    names = [f"lif{i}" for i in range(6)]
    engine.place((name, i, "spiking") for i, name in enumerate(names))
    silent = {"n_spikes": 0, "n_positive": 0, "sum_abs_spike": 0.0, "n_dead": 100}
    silent |= {"n_sg_active": 0, "n_carrying": 0}
    one = wide(range(100, 130), lif=silent).filter(layer="lif")
    out = engine.feed(pl.concat([one.with_columns(layer=pl.lit(name)) for name in names]))
    roots = out.filter(pl.col("root_rule").is_null(), state="firing")
    assert roots.select("rule", "layer", "n_following").rows() == [("dead-layer", "lif0", 5)]


FIGURES = st.lists(
    st.lists(st.sampled_from([0.5, 0, -1, 3, None]), min_size=N_LAYERS, max_size=N_LAYERS),
    min_size=1,
    max_size=40,
)
RULES = [
    Rule(name="nan", expr="mfr < 0", for_steps=2, follows={"anywhere": ["nan"]}),
    Rule(name="dead", expr="mfr <= 0", follows={"before": ["dead"], "anywhere": ["nan"]}),
    Rule(
        name="high",
        expr="mfr > 1",
        for_steps=2,
        keep_firing_for=1,
        follows={"behind": ["dead"], "here": ["falls"]},
    ),
    Rule(name="falls", expr="mfr < avg_over(mfr, 3)", follows={"before": ["falls"]}),
    Rule(name="drift", expr="ABS(mfr - baseline(mfr, 4)) > 0.4"),
    Rule(name="gone", expr="missed_steps > 2"),
]


@settings(deadline=None, max_examples=40)
@given(FIGURES, st.randoms())
def test_any_way_to_cut_the_rows_gives_the_same_transitions(figures, dice: random.Random):
    frame = rows(figures).filter(pl.col("mfr").is_not_null())
    whole = engine_of(*RULES).feed(frame)
    engine, begin, parts = engine_of(*RULES), 0, [whole.clear()]
    while begin < frame.height:
        size = dice.randint(1, 9)
        parts.append(engine.feed(engine._waiting.add(frame[begin : begin + size])))
        begin += size
    assert pl.concat([*parts, engine.finish()]).equals(whole)


@settings(deadline=None, max_examples=40)
@given(FIGURES)
def test_there_is_always_somebody_to_tell(figures):
    """Whatever fires, what it is folded under is active, or has been, and is a root itself."""
    frame = rows(figures).filter(pl.col("mfr").is_not_null())
    out = engine_of(*RULES[:3]).feed(frame)
    active = out.filter(pl.col("state").is_in(["pending", "firing"]))
    seen = set(active.select("rule", "layer").rows())
    for row in out.filter(pl.col("root_rule").is_not_null()).rows(named=True):
        assert (row["root_rule"], row["root_layer"]) in seen
        assert (row["root_rule"], row["root_layer"]) != (row["rule"], row["layer"])


@pytest.mark.parametrize("shape", ["table", "place", "list"])
def test_a_wrong_follows_is_told(shape):
    wrong = {"table": ["dead"], "place": {"above": ["x"]}, "list": {"before": "x"}}[shape]
    with pytest.raises(Exception, match="follows"):
        Rule(name="x", expr="mfr > 0", follows=wrong)
