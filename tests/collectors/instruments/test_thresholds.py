"""Thresholds of which each channel has its own: along which axis of the potentials they lie."""

import pytest
import torch
from torch import nn

from ..own_neurons import Spike


BATCH, N_STEPS = 2, 3


class Own(nn.Module):
    """A neuron whose loop over time lays its thresholds as it likes."""

    def __init__(self, threshold, lay):
        super().__init__()
        self.threshold, self._lay = nn.Parameter(threshold), lay
        self.seen = []

    def forward(self, x):
        theta, u, spikes = self._lay(self.threshold), torch.zeros_like(x[0]), []
        for current in x:
            u = 0.5 * u + current
            spikes.append(Spike.apply(u - theta))
            self.seen.append(((u - theta) / theta).detach())
            u = u * (1 - spikes[-1])
        return torch.stack(spikes)


def thetas(n):
    return torch.linspace(0.3, 1.2, n)


def read(listen, neuron, shape, *, layers=()):
    """The rows of a neuron between the layers of a model, and the z that it has seen itself."""
    torch.manual_seed(0)
    net = nn.Sequential(neuron, *layers)
    heard = listen(net)
    neuron(2 * torch.rand(N_STEPS, BATCH, *shape).requires_grad_())
    return heard.tables("0"), torch.stack(neuron.seen), heard.notes


def is_of(row, z):
    assert row["n_membrane"] == row["n_membrane_pre_reset"] == z.numel()
    assert row["sum_z"] == pytest.approx(z.sum().item(), rel=1e-4)
    assert row["sum_sq_z"] == pytest.approx(z.square().sum().item(), rel=1e-4)
    assert row["n_above_threshold"] == (z >= 0).sum()


@pytest.mark.parametrize("shape", [(8, 8, 8), (6, 8, 8), (6, 4, 8)])
def test_a_row_of_thresholds_lies_along_the_channels_of_a_feature_map(listen, shape):
    neuron = Own(thetas(shape[0]), lambda theta: theta.view(1, -1, 1, 1))
    tables, z, notes = read(listen, neuron, shape)
    is_of(tables["membrane"], z)
    assert tables["dynamics"]["n_thresholds"] == shape[0]
    assert not notes


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 7), (7,)])
def test_it_lies_along_the_last_axis_where_that_alone_is_as_long(listen, shape):
    tables, z, _ = read(listen, Own(thetas(7), lambda theta: theta), shape)
    is_of(tables["membrane"], z)


def test_of_tokens_and_channels_it_lies_along_those_that_a_layer_has_outputs_of(listen):
    neuron = Own(thetas(6), lambda theta: theta.view(1, -1, 1))
    tables, z, _ = read(listen, neuron, (6, 9), layers=[nn.Conv1d(2, 6, 1)])
    is_of(tables["membrane"], z)


@pytest.mark.parametrize("held", [(6, 1, 1), (1, 6, 1, 1)])
def test_thresholds_that_are_held_in_a_shape_of_the_neurons_lie_as_they_are(listen, held):
    neuron = Own(thetas(6).view(held), lambda theta: theta)
    tables, z, _ = read(listen, neuron, (6, 4, 6))
    is_of(tables["membrane"], z)


def test_what_fits_no_axis_is_told_of_and_takes_no_other_figure_with_it(listen):
    neuron = Own(thetas(3), lambda theta: theta.repeat_interleave(2).view(1, -1, 1, 1))
    tables, _, notes = read(listen, neuron, (6, 8, 8))
    assert "membrane" not in tables
    assert tables["dynamics"]["n_thresholds"] == 3
    assert "timing" in tables
    ((layer, told),) = set(notes)
    assert layer == "0"
    assert "3 thresholds" in told
    assert "shape (6, 8, 8)" in told
