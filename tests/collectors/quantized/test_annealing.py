"""The stage of annealed weights, and the place of a layer in its network."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional

import spikewatch
from spikewatch.collectors.quantized.annealing import AnnealingStage
from spikewatch.collectors.quantized.reading import Weights
from spikewatch.zoo.progressive import soft_ternary
from spikewatch.zoo.ternary_linear import TernaryLinear, round_to_8_bit, ternarize


def latents(n_rows=60, n=50, seed=0):
    return torch.randn(n_rows, n, generator=torch.Generator().manual_seed(seed)) * 0.02


def absmean(w):
    scale = w.abs().mean(1, keepdim=True)
    return (w / scale).round().clamp(-1, 1) * scale


def min_max(w, dims):
    most = w.abs().amax(dims, keepdim=True)
    return (w / most).round() * most


QUANTIZERS = {
    "twn": ternarize,
    "twn by row": lambda w: ternarize(w, by_row=True),
    "bitnet by row": absmean,
    "min-max": lambda w: min_max(w, (0, 1)),
    "min-max by row": lambda w: min_max(w, (1,)),
}


def counters_of(weight, latent, module=None, granularity=None):
    read = AnnealingStage().read(Weights(weight, latent, granularity, module or nn.Linear(1, 1)))
    if read is None:
        return {}
    (name, value), *rest = read.tables["latent"].items()
    if isinstance(name, tuple):
        return value.fold(value.readings.tolist())
    return {name: float(value)} | {n: float(v) for n, v in rest}


def stage_of(*args, **kwargs):
    counters = counters_of(*args, **kwargs)
    return counters["annealing_lambda"] if counters.get("annealing_explained") else None


@settings(deadline=None, max_examples=25)
@given(st.floats(0.05, 1.0), st.sampled_from(list(QUANTIZERS)), st.integers(0, 100))
def test_the_projection_recovers_lambda(lam, name, seed):
    w = latents(seed=seed)
    weight = w + lam * (QUANTIZERS[name](w) - w)
    assert stage_of(weight, w) == pytest.approx(lam, abs=1e-4)


def test_of_a_hot_softened_step_it_is_told_how_much_nearer_to_ternary_the_weights_are():
    layer, w = nn.Linear(50, 60), latents()
    delta, stages = 0.7 * w.abs().mean(), []
    for layer.temperature in (4.0, 2.0, 1.3, 0.8, 0.5, 0.3, 0.1, 0.03):
        weight = soft_ternary(w, delta=delta, temperature=layer.temperature)
        counters = counters_of(weight, w, layer)
        assert counters["annealing_clock"] == pytest.approx(layer.temperature)
        stages.append(counters["annealing_lambda"])
    assert stages == sorted(stages)
    assert 0.05 < stages[0] < 0.15 < stages[2] < 0.5 < 0.8 < stages[-1] < 1


def test_of_a_large_layer_some_rows_are_enough():
    w = latents(3000, 100)
    assert stage_of(w + 0.3 * (absmean(w) - w), w) == pytest.approx(0.3, abs=0.01)


def test_a_softened_step_is_seen_to_go_on():
    w = latents()
    delta = 0.7 * w.abs().mean()
    stages = [stage_of(soft_ternary(w, delta=delta, temperature=t), w) for t in (0.3, 0.2, 0.1)]
    assert 0.6 < stages[0] < stages[1] < stages[2] < 1


@pytest.mark.parametrize(
    "change", [round_to_8_bit, lambda w: 1.1 * w, lambda w: w + 1e-3 * w.roll(1), torch.clone]
)
def test_what_is_not_on_its_way_has_no_stage(change):
    assert stage_of(change(latents()), latents()) is None


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1])
def test_weights_that_only_change_their_length_have_no_stage(factor):
    """Beside an outlier all weights of a row are zeros to a min-max observer: a way much alike."""
    w = latents(20, 2000)
    w[:, 0] = 0.4
    assert stage_of(factor * w, w) is None
    assert stage_of(w + 0.5 * (min_max(w, (1,)) - w), w) == pytest.approx(0.5, abs=1e-4)


def test_ternary_weights_have_arrived_and_a_lambda_of_the_layer_comes_first():
    w = latents()
    assert stage_of(ternarize(w), w, granularity="tensor") == 1.0
    layer = nn.Linear(50, 60)
    layer.lambda_ = torch.tensor([0.25])
    assert stage_of(w, w, layer) == 0.25


class Annealed(nn.Linear):
    """BitNet's warm-up, without a word of it in the module."""

    def forward(self, x):
        progress = self.progress
        w = self.weight
        return functional.linear(x, w + progress * (absmean(w) - w).detach(), self.bias)


def test_a_layer_is_followed_before_it_is_ternary(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(Annealed(40, 60), TernaryLinear(60, 30), nn.Linear(30, 4))
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        for step in range(3):
            net[0].progress = 0.2 + 0.3 * step
            net(torch.randn(4, 40)).square().mean().backward()
            optimizer.step()
    with spikewatch.open_store(tmp_path) as store:
        seen = store.sql("SELECT annealing FROM latent WHERE layer = '0' ORDER BY step")
        share = store.sql("SELECT DISTINCT layer, model_ternary_frac FROM weights")
    assert seen["annealing"].to_list() == pytest.approx([0.2, 0.5, 0.8], abs=1e-3)
    assert share.rows() == [("1", pytest.approx(1800 / (2400 + 1800 + 120)))]
