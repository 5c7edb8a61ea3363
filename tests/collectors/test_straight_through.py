"""Which graphs are those of values that were put in the place of others."""

import pytest
import torch
from torch.nn import functional

from spikewatch.collectors.straight_through import is_straight_through


def hard(x):
    return (x > 1).float()


ESTIMATORS = {
    "added": lambda x: hard(x) + x - x.detach(),
    "subtracted": lambda x: x - (x - hard(x)).detach(),
    "soft": lambda x: (hard(x) - x.sigmoid()).detach() + x.sigmoid(),
    "stacked": lambda x: torch.stack([hard(x) + x - x.detach(), hard(2 * x) + x - x.detach()]),
    "times a number": lambda x: ((hard(x) - x.sigmoid()).detach() + x.sigmoid()) * 0.5 / 2,
    "with an amplitude": lambda x: torch.ones(6, requires_grad=True) * (hard(x) + x - x.detach()),
}
OTHERS = {
    "gate": lambda x: x * hard(x),
    "gate of a sum": lambda x: (x - 1) * hard(x),
    "gate times a number": lambda x: 0.5 * x * hard(x),
    "gate of channels": lambda x: (x - 1) * torch.zeros(6),
    "choice": lambda x: torch.where(x > 1, x, 0.0),
    "relu": lambda x: functional.relu(x - 1),
    "soft shrink": lambda x: x - x.clamp(-1, 1),
    "both sides": lambda x: functional.relu(x - 1) - functional.relu(-x - 1),
    "a layer": lambda x: functional.linear(x, torch.ones(2, 6), torch.ones(2)),
    "the input": lambda x: x.view(-1),
}


def inputs():
    return torch.randn(4, 6, requires_grad=True) + 0.5


@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
def test_values_in_the_place_of_others_are_known_by_their_graph(make):
    x = inputs()
    assert is_straight_through(make(x), [x])


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_what_a_gate_or_a_layer_makes_of_its_input_is_not(make):
    x = inputs()
    assert not is_straight_through(make(x), [x])


def test_values_without_a_graph_are_not():
    assert not is_straight_through(torch.zeros(3), [])
