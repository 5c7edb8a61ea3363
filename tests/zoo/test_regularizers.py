"""Each regularizer: its value by hand, its gradient by finite differences, and its direction."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

from spikewatch.zoo import amplitude_variance, double_well, lost_entropy, sparsity


def test_the_double_well_is_zero_at_the_levels_and_highest_between():
    alpha = 1.5
    assert double_well(torch.tensor([-1.5, 0.0, 1.5]), alpha).item() == 0
    barrier = double_well(torch.tensor([0.75]), alpha).item()
    assert barrier == pytest.approx(alpha**4 / 16)
    grid = torch.linspace(0, alpha, 301)
    assert max(double_well(w, alpha).item() for w in grid) == pytest.approx(barrier, rel=1e-4)


@pytest.mark.parametrize(
    "penalty",
    [
        lambda w: double_well(w, 0.8),
        sparsity,
        amplitude_variance,
        lambda w: lost_entropy(w, alpha=0.8, delta=0.4),
    ],
)
def test_gradients_are_exact(penalty):
    torch.manual_seed(0)
    weight = torch.randn(30, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(penalty, weight)


def test_amplitude_variance_of_one_amplitude_is_zero_and_not_nan():
    amplitude = torch.ones(1, requires_grad=True)
    amplitude_variance(amplitude).backward()
    assert amplitude_variance(amplitude).item() == amplitude.grad.item() == 0
    assert amplitude_variance(torch.tensor([1.0, 3.0])).item() == 1


def descend(weight, penalty, *, n_steps, lr):
    weight = weight.clone().requires_grad_()
    optimizer = torch.optim.Adam([weight], lr)
    for _ in range(n_steps):
        optimizer.zero_grad()
        penalty(weight).backward()
        optimizer.step()
    return weight.detach()


def test_descending_on_lost_entropy_spreads_weights_that_had_collapsed():
    torch.manual_seed(0)
    weight = torch.randn(500) * 0.1
    weight[0] = 3.0

    def shares_of(w):
        return [(w < -0.4).float().mean(), (w.abs() <= 0.4).float().mean()]

    assert shares_of(weight)[1] > 0.99
    after = descend(weight, lambda w: lost_entropy(w, alpha=0.8, delta=0.4), n_steps=300, lr=0.05)
    negative, zero = shares_of(after)
    assert 0.2 < negative < 0.45
    assert 0.2 < zero < 0.5


def test_entropy_itself_added_to_the_loss_would_collapse_them():
    torch.manual_seed(0)
    weight = 0.4 * torch.randn(500)
    fallen = descend(
        weight,
        lambda w: math.log(3) - lost_entropy(w, alpha=0.8, delta=0.4),
        n_steps=300,
        lr=0.05,
    )
    assert (weight.abs() <= 0.4).float().mean() < 0.75
    assert (fallen.abs() <= 0.4).float().mean() > 0.95


def test_descending_on_the_double_well_makes_weights_ternary():
    torch.manual_seed(0)
    weight = descend(torch.randn(200), lambda w: double_well(w, 1.0), n_steps=400, lr=0.02)
    nearest = torch.stack([(weight - level).abs() for level in (-1, 0, 1)]).amin(0)
    assert nearest.mean() < 0.1


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20))
def test_lost_entropy_is_finite_and_within_its_range(values):
    weight = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    lost = lost_entropy(weight, alpha=1.0, delta=0.5)
    lost.backward()
    assert -1e-9 <= lost.item() <= math.log(3) + 1e-9
    assert weight.grad.isfinite().all()
