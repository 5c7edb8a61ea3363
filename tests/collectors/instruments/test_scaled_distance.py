"""Spike functions that are given the distance from the threshold in other units."""

import pytest
import torch
from torch import nn


class Spike(torch.autograd.Function):
    """A triangle of half-width 1."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).float()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (1 - x.abs()).clamp(min=0)


# What the function is given, and how much of the potential one unit of that is; None for θ.
FORMS = {
    "(u - θ) / θ": (lambda u, th: (u - th) / th, None),
    "u / θ - 1": (lambda u, th: u / th - 1, None),
    "4 (u - θ)": (lambda u, th: 4 * (u - th), 0.25),
    "-4 (θ - u)": (lambda u, th: -4 * (th - u), 0.25),
    "u - θ": (lambda u, th: u - th, 1.0),
    "x / 2 - θ": (lambda u, th: (2 * u) / 2 - th, 1.0),
}


class Neuron(nn.Module):
    def __init__(self, form, threshold):
        super().__init__()
        self.form, self.threshold, self.v, self.seen = form, threshold, 0.0, []

    def forward(self, x):
        self.v = 0.9 * self.v + x
        self.seen.append(self.v.detach())
        spikes = Spike.apply(self.form(self.v, self.threshold))
        self.v = self.v - spikes.detach() * self.threshold
        return spikes


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("threshold", [0.05, 3.0])
@pytest.mark.parametrize("name", FORMS)
def test_potential_and_surrogate_are_told_in_thresholds_whatever_the_function_is_given(
    listen, name, threshold, learned
):
    torch.manual_seed(0)
    form, unit = FORMS[name]
    theta = nn.Parameter(torch.tensor(threshold)) if learned else threshold
    net = nn.Sequential(nn.Linear(6, 16), Neuron(form, theta))
    heard = listen(net)
    for _ in range(4):
        spikes = net(8 * threshold * torch.rand(32, 6))
    spikes.sum().backward()
    tables = heard.tables("1")
    z = torch.stack(net[1].seen) / threshold - 1
    row = tables["membrane"]
    assert row["n_membrane"] == z.numel()
    assert row["sum_z"] == pytest.approx(z.sum().item(), rel=1e-3)
    assert row["sum_sq_z"] == pytest.approx(z.square().sum().item(), rel=1e-3)
    # Half of the triangle's height is at ±1/2 of what it is given.
    assert tables["dynamics"]["fwhm"] == pytest.approx(unit or threshold, rel=1e-2)


def test_a_mask_on_the_distance_is_no_unit(listen):
    torch.manual_seed(0)
    mask = (torch.arange(16) % 4 > 0).float()
    net = nn.Sequential(nn.Linear(6, 16), Neuron(lambda u, th: (u - th) * mask, 1.0))
    heard = listen(net)
    for _ in range(4):
        spikes = net(8 * torch.rand(32, 6))
    spikes.sum().backward()
    assert heard.tables("1").get("membrane", {}).get("n_membrane_nonfinite", 0) == 0
