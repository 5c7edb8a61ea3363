"""What the shipped rules fold under what, and what they do not."""

import polars as pl
import pytest

from spikewatch.alerts.engine import Engine
from spikewatch.alerts.loading import load_rules

from .sick import SICK


CAUSE_AND_CONSEQUENCE = [
    ("unequal-scales", "low-sqnr"),
    ("unequal-scales", "oscillating-weights"),
    ("unequal-scales", "restless-weights"),
    ("scale-not-positive", "oscillating-weights"),
    ("scale-gradient-turned", "low-sqnr"),
    ("scale-gradient-turned", "oscillating-weights"),
    ("scale-gradient-turned", "restless-weights"),
    ("latent-weights-drift", "oscillating-weights"),
    ("weights-pile-up", "oscillating-weights"),
    ("ternary-collapse", "restless-weights"),
]


def told(rows, *, layers):
    """Alerts that are told, of layers in their order from the input on."""
    engine = Engine(load_rules(), run="r", rank=0)
    engine.place((layer, depth, "ternary") for depth, layer in enumerate(layers))
    out = engine.feed(rows).filter(pl.col("root_rule").is_null(), state="firing")
    return out.select("rule", "layer").rows()


def weights(wide, steps, *names, layer="fc"):
    """Rows of a ternary layer with these illnesses."""
    ill = {k: v for name in names for k, v in SICK[name][1].items()}
    return wide(steps, fc=ill).filter(layer="fc").with_columns(layer=pl.lit(layer))


@pytest.mark.parametrize("name", [name for name in SICK if SICK[name][0] in ("lif", "tern", "fc")])
def test_what_makes_all_layers_ill_alike_is_one_alert(wide, name):
    of, counters = SICK[name]
    rows = pl.concat([wide(range(40)), wide(range(40, 60), **{of: counters})]).filter(layer=of)
    layers = [f"block{i}" for i in range(6)]
    all_rows = pl.concat([rows.with_columns(layer=pl.lit(layer)) for layer in layers])
    ((rule, layer),) = told(all_rows, layers=layers)
    assert rule == name
    # What comes back from behind, or is cut there, begins with the last one.
    assert layer in (layers[0], layers[-1])


@pytest.mark.parametrize(("cause", "consequence"), CAUSE_AND_CONSEQUENCE)
def test_what_comes_of_an_illness_of_ternary_weights_is_folded_under_it(wide, cause, consequence):
    parts = [
        weights(wide, range(40)),
        weights(wide, range(40, 46), cause),
        weights(wide, range(46, 90), cause, consequence),
    ]
    assert told(pl.concat(parts), layers=["fc"]) == [(cause, "fc")]


@pytest.mark.parametrize(("cause", "consequence"), CAUSE_AND_CONSEQUENCE)
def test_the_same_illness_of_another_layer_stands_for_itself(wide, cause, consequence):
    parts = [
        weights(wide, range(90), consequence, layer="block0"),
        weights(wide, range(90), cause, layer="block1"),
    ]
    found = told(pl.concat(parts).sort("step"), layers=["block0", "block1"])
    assert set(found) == {(consequence, "block0"), (cause, "block1")}


@pytest.mark.parametrize(("cause", "consequence"), CAUSE_AND_CONSEQUENCE)
def test_what_goes_on_when_its_cause_is_over_is_told(wide, cause, consequence):
    parts = [
        weights(wide, range(40)),
        weights(wide, range(40, 60), cause, consequence),
        weights(wide, range(60, 120), consequence),
    ]
    assert set(told(pl.concat(parts), layers=["fc"])) == {(cause, "fc"), (consequence, "fc")}


def test_amplitudes_that_are_tied_in_all_layers_are_one_alert(wide):
    tied = wide(range(190, 210), tern={"sum_sq_amplitude": 4.0}).filter(layer="tern")
    rows = pl.concat([tied.with_columns(layer=pl.lit(layer)) for layer in "abc"])
    assert told(rows, layers="abc") == [("amplitudes-tied", "a")]


def test_neurons_that_are_silent_are_those_that_the_loud_ones_leave_over(wide):
    parts = [wide(range(100, 105), lif={"n_saturated": 60})]
    parts += [wide(range(105, 130), lif={"n_saturated": 60, "n_dead": 10, "n_carrying": 0})]
    assert told(pl.concat(parts).filter(layer="lif"), layers=["lif"]) == [
        ("many-saturated-neurons", "lif")
    ]


@pytest.mark.parametrize("cause", ["scale-gradient-turned", "scale-not-positive"])
def test_a_loss_stands_still_because_scales_climb_it(wide, cause):
    loss = wide(range(200)).filter(layer="loss").with_columns(value=pl.lit(2.0))
    rows = pl.concat([weights(wide, range(200), cause), loss]).sort("step")
    assert told(rows, layers=["fc"]) == [(cause, "fc")]


def test_a_loss_stands_still_because_a_layer_was_dead_all_the_time(wide):
    """Dead by step 100, when at the latest that is known; the loss has a figure of 100 steps."""
    dead = {"n_dead": 100, "n_carrying": 90, "n_never_fired": 100, "n_spikes": 0, "n_positive": 0}
    loss = wide(range(200)).filter(layer="loss").with_columns(value=pl.lit(2.0))
    rows = pl.concat([wide(range(200), lif=dead).filter(layer="lif"), loss]).sort("step")
    assert told(rows, layers=["lif"]) == [("dead-layer", "lif")]


def test_a_loss_explodes_because_a_layer_has_collapsed(wide):
    loss = wide(range(70)).filter(layer="loss").with_columns(
        value=pl.when(pl.col("step") < 50).then(0.5).otherwise(5.0)
    )  # fmt: skip
    collapsed = [weights(wide, range(45)), weights(wide, range(45, 70), "ternary-collapse")]
    rows = pl.concat([*collapsed, loss]).sort("step")
    assert told(rows, layers=["fc"]) == [("ternary-collapse", "fc")]
