"""Learnable and annealed steepness against the smooth function that they stand for."""

import itertools
import math

import pytest
import torch

from spikewatch.zoo import LIF, AnnealedATan, ATan, LearnableATan, spike


def sigma(d, alpha):
    return 0.5 + torch.arctan(math.pi / 2 * alpha * d) / math.pi


def test_alpha_and_distance_get_the_gradients_of_the_smooth_function():
    torch.manual_seed(0)
    surrogate = LearnableATan(1.7).double()
    d = torch.randn(40, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(40, dtype=torch.float64)
    spike(d, surrogate).backward(upstream)
    smooth_d = d.detach().clone().requires_grad_()
    alpha = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    sigma(smooth_d, alpha).backward(upstream)
    torch.testing.assert_close(d.grad, smooth_d.grad)
    torch.testing.assert_close(surrogate.alpha.grad.item(), alpha.grad.item(), rtol=1e-6, atol=0)


def test_alpha_gets_no_gradient_beyond_its_clamp():
    surrogate = LearnableATan(25.0)
    spike(torch.tensor([0.3, -0.1], requires_grad=True), surrogate).sum().backward()
    assert surrogate.alpha.grad.item() == 0
    assert surrogate.peak == 10


def test_the_two_have_the_peak_area_and_width_of_atan():
    for surrogate in (LearnableATan(3.0), AnnealedATan(3.0, 9.0)):
        fixed = ATan(3.0)
        assert surrogate.peak == pytest.approx(fixed.peak)
        assert surrogate.area == fixed.area
        assert surrogate.fwhm == pytest.approx(fixed.fwhm)
        d = torch.linspace(-2, 2, 9)
        torch.testing.assert_close(surrogate.derivative(d), fixed.derivative(d))


def test_annealing_narrows_by_the_same_factor_in_equal_times_and_is_saved():
    surrogate = AnnealedATan(1.0, 16.0)
    widths = []
    for progress in (0.0, 0.25, 0.5, 0.75, 1.0, 1.7):
        surrogate.advance(progress)
        widths.append(surrogate.fwhm)
    assert [a / b for a, b in itertools.pairwise(widths)] == pytest.approx([2] * 4 + [1])
    again = AnnealedATan(1.0, 16.0)
    again.load_state_dict(surrogate.state_dict())
    assert again.alpha.item() == 16


def test_a_neuron_learns_its_steepness_and_its_threshold_side_by_side():
    lif = LIF(surrogate=LearnableATan(), learn_threshold=True)
    lif(torch.tensor([[0.4, 1.3, 0.9]]))[0].square().sum().backward()
    assert {n: p.grad.item() != 0 for n, p in lif.named_parameters()} == {
        "threshold": True,
        "surrogate.alpha": True,
    }
