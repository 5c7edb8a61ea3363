"""Parallel spiking neurons that users copied: no loop, but weights that mix the time steps."""

import pytest
import torch
from spikingjelly.activation_based import surrogate
from torch import nn
from torch.nn import functional

import spikewatch

from ..own_neurons import Spike


N_STEPS, BATCH = 4, 5


class PSN(nn.Module):
    """As in the paper: a learned matrix takes all charges to all potentials."""

    def __init__(self, spike=None):
        super().__init__()
        torch.manual_seed(0)
        self.spike = spike
        self.weight = nn.Parameter(torch.eye(N_STEPS) + 0.1)
        self.bias = nn.Parameter(torch.full((N_STEPS, 1), -0.1))

    def matrix(self):
        return self.weight

    def fire(self, u):
        return Spike.apply(u) if self.spike is None else self.spike(u)

    def forward(self, x_seq):
        h_seq = torch.addmm(self.bias, self.matrix(), x_seq.flatten(1))
        return self.fire(h_seq).view(x_seq.shape)


class MaskedPSN(PSN):
    def matrix(self):
        return self.weight * torch.ones(N_STEPS, N_STEPS).tril()


class SlidingPSN(PSN):
    """The weights of one window are put into each row."""

    def matrix(self):
        rows = torch.zeros(N_STEPS, N_STEPS)
        for t in range(N_STEPS):
            first = max(0, t - 1)
            rows[t, first : t + 1] = self.weight[0, first - t - 1 :]
        return rows


class Convolves(PSN):
    """The same window by a convolution, with time last."""

    def forward(self, x_seq):
        x = x_seq.transpose(0, -1)
        h = functional.pad(x.flatten(0, -2).unsqueeze(1), (1, 0))
        h = functional.conv1d(h, self.weight[:1, None, :2]).squeeze(1).view(x.shape)
        return self.fire(h.transpose(0, -1))


class Projects(PSN):
    """By a linear layer that gets time last."""

    def __init__(self):
        super().__init__()
        self.over_time = nn.Linear(N_STEPS, N_STEPS)

    def forward(self, x_seq):
        return self.fire(self.over_time(x_seq.movedim(0, -1)).movedim(-1, 0))


@pytest.fixture(name="row")
def _row(tmp_path):
    def row(net, shape):
        """What is counted of the one spiking layer in a training step, with its notes."""
        torch.manual_seed(0)
        with spikewatch.attach(net, dir=tmp_path, run="mixed", every=1, quiet=True):
            net(5 * torch.randn(shape)).sum().backward()
        with spikewatch.open_store(tmp_path) as store:
            found = store.sql(
                "SELECT layer, n_obs, n_neurons, n_ttfs_pairs, sum_ttfs_length_steps AS n_steps "
                "FROM spikes JOIN timing USING (run, rank, phase, step, layer) WHERE n_spikes > 0"
            )
            told = store.sql("SELECT message FROM events WHERE kind = 'note'")["message"]
        return {**found.row(0, named=True), "mixed": any("mix" in text for text in told)}

    return row


@pytest.mark.parametrize("make", [PSN, MaskedPSN, SlidingPSN, Convolves, Projects])
@pytest.mark.parametrize("neurons", [(8,), (3, 2, 2)])
def test_time_steps_that_weights_mix_are_no_batch(row, make, neurons):
    net = nn.Sequential(nn.Linear(neurons[-1], neurons[-1]), make())
    seen = row(net, (N_STEPS, BATCH, *neurons))
    n_neurons = torch.Size(neurons).numel()
    assert (seen["n_obs"], seen["n_neurons"]) == (N_STEPS * BATCH, n_neurons)
    assert seen["n_ttfs_pairs"] == BATCH * n_neurons
    assert seen["n_steps"] == N_STEPS * BATCH * n_neurons


def test_batch_and_neurons_that_were_flattened_before_the_mixing_are_told_apart(row):
    seen = row(nn.Sequential(nn.Linear(6, 8), PSN(surrogate.ATan())), (N_STEPS, BATCH, 6))
    assert seen["layer"] == "1.spike"
    assert (seen["n_obs"], seen["n_neurons"]) == (N_STEPS * BATCH, 8)


def test_where_they_cannot_be_told_apart_there_is_a_note(row):
    assert row(nn.Sequential(PSN(surrogate.ATan())), (N_STEPS, BATCH, 6))["mixed"]


@pytest.mark.parametrize("shape", [(8, 8), (8, 1, 8)])
def test_a_square_layer_mixes_no_samples_though_there_are_as_many_as_neurons(row, shape):
    class Neuron(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x):
            return Spike.apply(self.fc(x))

    seen = row(nn.Sequential(nn.Linear(8, 8), Neuron()), shape)
    assert seen["n_obs"] == 8
    assert seen["n_steps"] == seen["n_ttfs_pairs"]
    assert not seen["mixed"]
