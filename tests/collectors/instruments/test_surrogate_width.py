"""The width of a surrogate as its own backward has it, learned or annealed, of any library."""

import math

import norse.torch as norse
import pytest
import snntorch as snn
import torch
from hypothesis import given, settings, strategies as st
from snntorch import surrogate as snn_surrogate
from spikingjelly.activation_based import neuron, surrogate as sj_surrogate
from torch import nn

from spikewatch.collectors.instruments.surrogate_width import full_width
from spikewatch.zoo.channel_ternary_spike import ChannelTernarySpike
from spikewatch.zoo.lif import LIF
from spikewatch.zoo.steepness import AnnealedATan, LearnableATan
from spikewatch.zoo.surrogates import ATan, Rectangle, SuperSpike, Triangle


ATAN = 4 / math.pi
SUPER = 2 * (math.sqrt(2) - 1)
SIGMOID = 2 * math.log(3 + 2 * math.sqrt(2))  # of a logistic density


class Spiking(nn.Module):
    """One time step of a neuron that keeps or returns its state."""

    def __init__(self, lif):
        super().__init__()
        self.lif = lif

    def forward(self, x):
        out = self.lif(x)
        return out[0] if isinstance(out, tuple) else out


def width_of(listen, lif, *, n=24):
    heard = listen(Spiking(lif))
    x = torch.randn(8, n, generator=torch.Generator().manual_seed(0)).requires_grad_()
    Spiking(lif)(x).sum().backward()
    return heard.flush("lif", "dynamics")


def leaky(surrogate):
    return snn.Leaky(beta=0.9, spike_grad=surrogate)


def node(surrogate):
    return neuron.LIFNode(surrogate_function=surrogate)


@pytest.mark.parametrize(
    ("lif", "width"),
    [
        (leaky(snn_surrogate.fast_sigmoid(25)), SUPER / 25),
        (leaky(snn_surrogate.atan(2.0)), ATAN / 2),
        (leaky(snn_surrogate.sigmoid(5)), SIGMOID / 5),
        (node(sj_surrogate.ATan(alpha=4.0)), ATAN / 4),
        (node(sj_surrogate.Sigmoid(alpha=4.0)), SIGMOID / 4),
        (node(sj_surrogate.Rect(alpha=2.0)), 0.5),
        (LIF(surrogate=SuperSpike(10.0)), SUPER / 10),
        (LIF(surrogate=SuperSpike(1000.0)), SUPER / 1000),
        (LIF(surrogate=ATan(2.0)), ATAN / 2),
        (LIF(surrogate=Triangle(1.0)), 1.0),
        (LIF(surrogate=Rectangle(0.5)), 0.5),
        (LIF(surrogate=LearnableATan(8.0)), ATAN / 8),
        (LIF(surrogate=AnnealedATan(1.0)), ATAN),
        (ChannelTernarySpike(24, surrogate=ATan(20.0)), ATAN / 20),
    ],
)
def test_it_is_the_one_of_the_formula(listen, lif, width):
    assert width_of(listen, lif)["fwhm"] == pytest.approx(width, rel=0.02)


def test_neurons_in_images_and_a_threshold_that_learns_are_measured_too(listen):
    lif = LIF(surrogate=ATan(2.0), learn_threshold=True)
    heard = listen(Spiking(lif))
    lif(torch.randn(2, 3, 4, 5, requires_grad=True))
    assert heard.flush("lif", "dynamics")["fwhm"] == pytest.approx(ATAN / 2, rel=0.02)


def test_it_is_that_of_the_backward_pass_and_not_of_a_parameter_that_this_leaves_out(listen):
    cell = norse.LIFCell(norse.LIFParameters(alpha=torch.tensor(100.0)))
    assert width_of(listen, cell)["fwhm"] == pytest.approx(SUPER, rel=0.02)  # as if α were 1


def test_an_annealed_width_is_followed(listen):
    surrogate = AnnealedATan(1.0, 8.0)
    lif = LIF(surrogate=surrogate)
    heard = listen(Spiking(lif))
    widths = []
    for progress in (0.0, 0.5, 1.0):
        surrogate.advance(progress)
        lif(torch.randn(8, 24, requires_grad=True))
        widths.append(heard.flush("lif", "dynamics")["fwhm"])
    assert widths == pytest.approx([ATAN, ATAN / math.sqrt(8), ATAN / 8], rel=0.01)


class Beside(torch.autograd.Function):
    """Keeps the potential, and the threshold beside it."""

    @staticmethod
    def forward(ctx, u, threshold, signed, slope):
        ctx.save_for_backward(u)
        ctx.threshold, ctx.signed, ctx.slope = threshold, signed, slope
        return (u > threshold).float() - signed * (u < -threshold).float()

    @staticmethod
    def backward(ctx, gradient):
        (u,) = ctx.saved_tensors
        at_negative = ctx.signed * ctx.slope(u + ctx.threshold)
        return gradient * (ctx.slope(u - ctx.threshold) + at_negative), None, None, None


class KeepsBeside(nn.Module):
    def __init__(self, *how):
        super().__init__()
        self.threshold, self.mem, self.how = how[0], 0.0, how

    def forward(self, x):
        self.mem = 0.5 * self.mem + x
        return Beside.apply(self.mem, *self.how)


@pytest.mark.parametrize("threshold", [1.0, 0.9873, 0.30251, 2.4976])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("slope", "width"),
    [
        (lambda v: 1 / (1 + 25 * v.abs()) ** 2, SUPER / 25),
        (lambda v: 1 / (1 + 200 * v.abs()) ** 2, SUPER / 200),
        (lambda v: (v.abs() < 0.25).float(), 0.5),
    ],
)
def test_a_threshold_beside_the_potential_makes_it_no_wider(
    listen, threshold, signed, slope, width
):
    lif = KeepsBeside(threshold, signed, slope)
    assert width_of(listen, lif)["fwhm"] == pytest.approx(width, rel=0.03)


def test_a_straight_through_estimator_has_no_width(listen):
    row = width_of(listen, leaky(snn_surrogate.straight_through_estimator()))
    assert row.get("fwhm") is None


def test_reading_it_changes_no_gradient(listen):
    torch.manual_seed(0)
    lif, x = LIF(surrogate=LearnableATan(2.0)), torch.randn(4, 6, requires_grad=True)

    def gradients():
        lif.zero_grad()
        x.grad = None
        lif(x)[0].square().sum().backward()
        return x.grad.clone(), lif.surrogate.alpha.grad.clone()

    before = gradients()
    listen(Spiking(lif))
    assert all(torch.equal(a, b) for a, b in zip(before, gradients(), strict=True))


GRID = [i / 100 for i in range(-500, 501)]


@settings(deadline=None, max_examples=30)
@given(st.floats(0.1, 4.0), st.floats(0.5, 20.0))
def test_the_width_of_a_triangle_whatever_its_height(width, height):
    slope = [height * max(0.0, 1 - abs(x) / width) for x in GRID]
    assert full_width(GRID, slope) == pytest.approx(width, abs=0.011)


def test_what_overflows_far_out_does_no_harm():
    slope = [max(0.0, 1 - abs(x)) if abs(x) < 3 else float("nan") for x in GRID]
    assert full_width(GRID, slope) == pytest.approx(1.0, abs=0.01)


def test_of_two_peaks_it_is_the_width_of_one():
    slope = [max(0.0, 1 - abs(abs(x) - 1.0) / 0.8) for x in GRID]
    assert full_width(GRID, slope) == pytest.approx(0.8, abs=0.01)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.05, 0.95), st.floats(0.02, 0.8))
def test_of_two_windows_it_is_the_width_of_one(threshold, width):
    half = min(width, threshold) / 2
    slope = [float(abs(abs(x) - threshold) < half) for x in GRID]
    if any(slope):
        assert full_width(GRID, slope) == pytest.approx(2 * half, abs=0.021)


@pytest.mark.parametrize("slope", [0.0, 1.0, float("nan"), float("inf")])
def test_what_has_no_peak_has_no_width(slope):
    assert full_width(GRID, [slope] * len(GRID)) is None
