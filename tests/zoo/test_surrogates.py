"""Each surrogate against its formula, its area and its peak by numerical integration."""

import math

import pytest
import torch

from spikewatch.zoo import ATan, Rectangle, SuperSpike, Triangle, spike


SURROGATES = [Rectangle(0.8), Triangle(0.5, 0.3), SuperSpike(10.0), ATan(2.0)]
_named = pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: type(s).__name__)

FORMULAS = [
    (Rectangle(0.8), lambda d: 1 / 0.8 if abs(d) < 0.4 else 0.0),
    (Triangle(0.5, 0.3), lambda d: 0.3 * max(0.0, 1 - abs(d) / 0.5)),
    (SuperSpike(10.0), lambda d: 1 / (1 + 10 * abs(d)) ** 2),
    (ATan(2.0), lambda d: 2 / (2 * (1 + (math.pi / 2 * 2 * d) ** 2))),
]


@pytest.mark.parametrize(("surrogate", "formula"), FORMULAS, ids=lambda s: type(s).__name__)
def test_the_gradient_of_a_spike_is_the_formula_times_the_upstream_gradient(surrogate, formula):
    distances = [-2.0, -0.41, -0.39, -0.1, 0.0, 0.1, 0.3, 0.45, 1.7]
    d = torch.tensor(distances, dtype=torch.float64, requires_grad=True)
    upstream = torch.linspace(-1, 2, len(distances), dtype=torch.float64)
    spike(d, surrogate).backward(upstream)
    expected = [formula(x) * up for x, up in zip(distances, upstream.tolist(), strict=True)]
    assert d.grad.tolist() == pytest.approx(expected, abs=1e-12)


@_named
def test_peak_area_and_width_are_what_the_class_says(surrogate):
    d = torch.linspace(-2000, 2000, 8_000_001, dtype=torch.float64)
    slope = surrogate.derivative(d)
    assert slope.max().item() == pytest.approx(surrogate.peak)
    assert torch.trapezoid(slope, d).item() == pytest.approx(surrogate.area, rel=2e-3)
    at_half = d[slope >= surrogate.peak / 2]
    width = (at_half.max() - at_half.min()).item()
    assert width == pytest.approx(surrogate.fwhm, abs=2e-3)


def test_a_spike_is_fired_above_the_threshold_and_not_at_it():
    assert spike(torch.tensor([-0.1, 0.0, 0.1]), ATan()).tolist() == [0, 0, 1]


@_named
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_of_spike_and_gradient_is_that_of_the_input(surrogate, dtype):
    d = torch.randn(8, dtype=dtype, requires_grad=True)
    spikes = spike(d, surrogate)
    assert spikes.dtype == dtype
    spikes.sum().backward()
    assert d.grad.dtype == dtype


def test_a_threshold_in_the_difference_learns_with_minus_sigma_prime():
    u = torch.tensor([0.2, 1.1, 1.9], dtype=torch.float64)
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    spike(u - theta, SuperSpike(10.0)).sum().backward()
    by_hand = -sum(1 / (1 + 10 * abs(x - 1)) ** 2 for x in u.tolist())
    assert theta.grad.item() == pytest.approx(by_hand)


def test_the_tail_of_superspike_is_as_small_as_its_docstring_says():
    slope = SuperSpike(10.0).derivative(torch.tensor(5.0, dtype=torch.float64))
    assert slope.item() == pytest.approx(3.8e-4, rel=0.02)
