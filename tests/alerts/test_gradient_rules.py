"""Gradients that stay away, or grow: where it is an illness, and where it is none."""

import itertools

import polars as pl
import pytest

from spikewatch.alerts.engine import Engine
from spikewatch.alerts.loading import load_rules

from .judged import fired
from .sick import SICK


def test_a_readout_whose_spikes_the_loss_does_not_use_is_not_ill(wide):
    unused = {"n_grad": 0, "sum_sq_grad": None, "n_nonfinite_grad": None, "n_sg_active": 10}
    unused |= {"n_grad_deepest": None}  # the deepest layer with gradient is before it
    engine = Engine(load_rules(), run="r", rank=0)
    out = engine.feed(wide(range(260), lif=unused)).filter(layer="lif")
    assert set(out.group_by("rule").last()["state"]) == {"ok"}


OF_A_READOUT_NO_ILLNESS = [
    *("dead-neurons", "many-dead-neurons", "dead-layer", "dead-channels", "low-rate", "high-rate"),
    *("saturated-neurons", "many-saturated-neurons"),
    *("runaway-membrane", "membrane-drifts", "membrane-loses-more", "surrogate-too-narrow"),
]


@pytest.mark.parametrize("name", OF_A_READOUT_NO_ILLNESS)
def test_a_readout_whose_spikes_the_loss_does_not_use_may_fire_as_it_likes(wide, name):
    layer, counters = SICK[name]
    unused = counters | {"n_grad": 0, "sum_sq_grad": None, "n_grad_deepest": None, "is_unused": 1}
    assert not fired(wide(range(40)), wide(range(40, 140), **{layer: unused}))


@pytest.mark.parametrize("name", OF_A_READOUT_NO_ILLNESS)
def test_where_nothing_is_trained_by_gradients_an_ill_layer_is_told(wide, name):
    layer, counters = SICK[name]
    ill = counters | {"n_grad": 0, "sum_sq_grad": None, "n_grad_deepest": None, "is_unused": None}
    assert (name, layer) in fired(wide(range(40)), wide(range(40, 60), **{layer: ill}))


def test_a_readout_with_deeper_layers_after_it_is_not_detached(wide):
    cut = {"n_grad": 0, "sum_sq_grad": None}
    assert ("detached-layer", "lif") in fired(wide(range(10), lif=cut))
    assert not fired(wide(range(10), lif=cut | {"is_unused": 1}))


def trained_now_and_then(wide, steps, n_without):
    """Steps in which the layer has gradient once after so many without, in turn."""
    cut, frames, turns = {"n_grad": 0, "sum_sq_grad": None}, [], itertools.cycle(n_without)
    while steps:
        n = next(turns)
        frames += [wide(part, lif=cut) for part in [steps[:n]] if part]
        frames += [wide(part) for part in [steps[n : n + 1]] if part]
        steps = steps[n + 1 :]
    return pl.concat(frames)


@pytest.mark.parametrize("n_without", [[1], [5], [9, 9, 30], [2, 0, 0, 9, 1, 20]])
def test_a_layer_that_is_trained_at_a_slower_pace_is_not_detached(wide, n_without):
    healthy = trained_now_and_then(wide, range(300), n_without)
    assert not fired(healthy)
    cut = wide(range(300, 520), lif={"n_grad": 0, "sum_sq_grad": None})
    assert fired(healthy, cut) == {("detached-layer", "lif")}


def test_a_layer_is_called_detached_after_ten_observed_steps(wide):
    cut = {"n_grad": 0, "sum_sq_grad": None}
    assert not fired(wide(range(9), lif=cut))
    assert fired(wide(range(10), lif=cut)) == {("detached-layer", "lif")}
    later = wide(range(40)), wide(range(40, 50), lif=cut)
    assert fired(*later) == {("detached-layer", "lif")}


def test_a_last_time_step_that_has_nothing_left_to_learn_is_no_illness(wide):
    sure = {"sum_sq_grad_last": 1e-5 / 1.6e19}  # a focal loss: 4e9 times less than at the first one
    assert not fired(wide(range(60), lif=sure))


def test_a_gradient_that_grows_to_no_more_than_the_deepest_layers_does_not_explode(wide):
    explodes = ("gradient-explodes", "lif")
    first = wide(range(40), lif={"sum_sq_grad": 1e-12})  # 1e-4 of the deepest layer's
    for square in (1e-6, 1e-4):  # 0.1 of it, and as much
        assert explodes not in fired(first, wide(range(40, 60), lif={"sum_sq_grad": square}))
    assert explodes in fired(first, wide(range(40, 60), lif={"sum_sq_grad": 1e-1}))
    everywhere = {"sum_sq_grad": 10.0, "sum_sq_grad_deepest": 10.0}
    assert explodes in fired(wide(range(40)), wide(range(40, 60), lif=everywhere))


def test_no_gradient_at_all_at_the_first_step_is_a_gate_where_some_comes_now_and_then(wide):
    gated, rule = {"sum_sq_grad_first": 0.0}, ("gradient-vanishes-through-time", "lif")
    healthy = [wide(range(12 * i, 12 * i + 2)) for i in range(12)]
    closed = [wide(range(12 * i + 2, 12 * i + 12), lif=gated) for i in range(12)]
    assert rule not in fired(*(part for turn in zip(healthy, closed, strict=True) for part in turn))


def test_no_gradient_ever_at_the_first_step_is_a_memory_that_nothing_passes(wide):
    cut, rule = {"sum_sq_grad_first": 0.0}, ("gradient-vanishes-through-time", "lif")
    assert rule in fired(wide(range(60), lif=cut))


@pytest.mark.parametrize(
    ("slope", "told"), [(5e-3, set()), (5e-5, {"vanished-surrogate-gradient"})]
)
def test_a_surrogate_that_is_low_and_flat_has_not_vanished(wide, slope, told):
    n = wide(range(1)).filter(layer="lif").item(0, "n_sg")
    flat = {"n_sg_active": 20, "sum_sg": slope * n, "sum_sq_sg": slope**2 * n}
    assert {rule for rule, _ in fired(wide(range(10), lif=flat))} == told
