"""Ternary weights: found where they are made, counted as they are multiplied."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from spikewatch.collectors.quantized.levels import ternary_granularity
from spikewatch.collectors.spike_values import looks_like_spikes


def twn(w, *, by_row=False):
    dims = tuple(range(1, w.dim())) if by_row else tuple(range(w.dim()))
    delta = 0.7 * w.abs().mean(dims, keepdim=True)
    live = w.abs() > delta
    scale = (w.abs() * live).sum(dims, keepdim=True) / live.sum(dims, keepdim=True)
    return scale * w.sign() * live


class TwnLinear(nn.Linear):
    def forward(self, x):
        q = twn(self.weight)
        return functional.linear(x, self.weight + (q - self.weight).detach(), self.bias)


class RowTwnConv(nn.Conv2d):
    def forward(self, x):
        q = twn(self.weight, by_row=True)
        return self._conv_forward(x, self.weight + (q - self.weight).detach(), self.bias)


class MatmulTwn(nn.Linear):
    def forward(self, x):
        return x @ twn(self.weight).t()


class Twn(nn.Module):
    def forward(self, w):
        return w + (twn(w) - w).detach()


def expected(q):
    return {
        "n_weight_negative": (q < 0).sum().item(),
        "n_weight_zero": (q == 0).sum().item(),
        "n_weight_positive": (q > 0).sum().item(),
    }


@pytest.mark.parametrize("make", [TwnLinear, MatmulTwn])
def test_the_weight_is_seen_as_it_is_multiplied(listen, make):
    torch.manual_seed(0)
    layer = make(40, 30, bias=False)
    heard = listen(nn.Sequential(layer))
    layer(torch.randn(2, 40)).sum().backward()
    assert heard.confirmed[0].kind == "ternary"
    observed = heard.observers["0"].flush("train")
    row = {k: float(v) for k, v in observed.tables["weights"].items()}
    q = twn(layer.weight.detach())
    assert row.items() >= expected(q).items()
    assert row["n_weights"] == 1200
    assert row["sum_scale_positive"] == pytest.approx(q[q > 0].sum().item(), rel=1e-5)
    assert row["delta"] == pytest.approx(layer.weight.abs()[q == 0].max().item())
    latent = next(h for h in observed.histograms if h.kind == "latent_weight")
    assert latent.counts.sum() + latent.below + latent.above == 1200


def test_weights_that_are_not_a_number_are_counted_in_the_step_they_come_in(listen):
    torch.manual_seed(0)
    layer = TwnLinear(40, 30, bias=False)
    heard = listen(nn.Sequential(layer))
    layer(torch.randn(2, 40))
    heard.flush("0", "weights")
    with torch.no_grad():
        layer.weight[3] = float("nan")
    layer(torch.randn(2, 40))
    observed = heard.observers["0"].flush("train")
    assert int(observed.tables["weights"]["n_nonfinite_weights"]) == 40
    latent = next(h for h in observed.histograms if h.kind == "latent_weight")
    assert int(latent.counts.sum() + latent.below + latent.above) == 29 * 40


def test_a_parametrized_layer_is_seen(listen):
    torch.manual_seed(0)
    layer = nn.Linear(40, 30)
    parametrize.register_parametrization(layer, "weight", Twn())
    heard = listen(nn.Sequential(layer))
    layer(torch.randn(2, 40))
    q = twn(layer.parametrizations.weight.original.detach())
    assert heard.flush("0", "weights").items() >= expected(q).items()


def test_channel_wise_scales_are_recognised_by_row(listen):
    torch.manual_seed(0)
    conv = RowTwnConv(8, 6, 3)
    heard = listen(nn.Sequential(conv))
    conv(torch.randn(1, 8, 9, 9))
    assert heard.confirmed[0].note == "a scale a row"
    alphas = heard.flush("0", "amplitudes")
    q = twn(conv.weight.detach(), by_row=True)
    scales = q.abs().flatten(1).amax(1)
    assert alphas["n_alphas"] == 6
    assert alphas["alpha_max"] == pytest.approx(scales.max().item(), rel=1e-5)


def test_weights_swapped_in_place_are_found_and_plain_ones_are_not(listen):
    torch.manual_seed(0)
    swapped, plain = nn.Linear(40, 30), nn.Linear(40, 30)
    with torch.no_grad():
        swapped.weight.copy_(twn(swapped.weight))
    heard = listen(nn.Sequential(swapped, plain))
    assert list(heard.observers) == ["0"]


def test_a_subclass_with_ordinary_weights_is_left_with_a_note(listen):
    class Lazy(nn.Linear):
        pass

    layer = Lazy(40, 30)
    heard = listen(nn.Sequential(layer))
    layer(torch.randn(2, 40))
    assert heard.flush("0", "weights") is None
    assert "not ternary" in heard.notes[0][1]


def test_a_forward_that_fails_leaves_no_function_mode_behind(listen):
    layer = TwnLinear(40, 30)
    listen(nn.Sequential(layer))
    with pytest.raises(RuntimeError, match="shapes"):
        layer(torch.randn(2, 7))
    assert torch.overrides._get_current_function_mode() is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_levels_survive_a_straight_through_estimator(dtype):
    torch.manual_seed(0)
    w = torch.randn(64, 64).to(dtype)
    q = twn(w.float()).to(dtype)
    assert ternary_granularity(w + (q - w)) == "tensor"
    assert ternary_granularity(w) is None


def test_groups_with_scales_of_their_own_are_recognised():
    torch.manual_seed(0)
    w = torch.randn(4, 256)
    q = twn(w.view(-1, 128), by_row=True).view(4, 256)
    assert ternary_granularity(q) == "group"


@pytest.mark.parametrize(
    ("values", "spikes"),
    [
        (torch.zeros(1000), None),
        (torch.bernoulli(torch.full((4000,), 0.2)), True),
        (torch.bernoulli(torch.full((4000,), 0.2)) * -0.7, True),
        (torch.randint(0, 5, (4000,)), True),
        (torch.randn(4000), False),
        (torch.relu(torch.randn(4000)), False),
        (torch.relu(torch.randn(40)), False),
        (torch.ones(4000), True),
        (torch.full((4000,), 20.0), None),
        (torch.randint(1, 5, (4000,)), None),
        (torch.randint(2, 5, (4000,)), None),
        (torch.randint(6, 14, (4000,)), False),
    ],
)
def test_spikes_have_zeros_and_few_levels(values, spikes):
    assert looks_like_spikes(values) is spikes
