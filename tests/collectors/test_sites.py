"""A module that several places of a model call, and that keeps no state to tell them by."""

import pytest
import torch
from spikingjelly.activation_based import rnn, surrogate
from torch import nn


N_STEPS, BATCH = 6, 4


class Loop(nn.Module):
    """A layer that keeps its potential by itself, and fires by a module that may be shared."""

    def __init__(self, spike):
        super().__init__()
        self.fc, self.spike = nn.Linear(8, 8), spike

    def fire(self, u):
        return self.spike(u - 1.0)

    def forward(self, x):
        u, spikes = torch.zeros(BATCH, 8), []
        for frame in x:
            u = 0.9 * u + 4 * self.fc(frame)
            spikes.append(self.fire(u))
            u = u - spikes[-1].detach()
        return torch.stack(spikes)


class Gates(Loop):
    """Two gates beside one another, written out."""

    def forward(self, x):
        return torch.stack([self.fire(self.fc(f)) * self.fire(1 - self.fc(f)) for f in x])


def timings(listen, net):
    """Of a pass in training and one in an evaluation; what has none has a note."""
    torch.manual_seed(0)
    heard = listen(net)
    for phase in ("train", "eval"):
        heard.n_forwards += 1
        with torch.set_grad_enabled(phase == "train"):
            net(3 * torch.rand(N_STEPS, BATCH, 8))
        (name,) = heard.spiking
        tables = heard.tables(name, phase)
        assert tables["spikes"]["n_spikes"] > 0
        assert ("timing" in tables) == (not heard.notes)
        yield tables.get("timing")
    assert all(n == name and "several places" in text for n, text in heard.notes)


def test_a_loop_over_time_calls_its_surrogate_at_one_place(listen):
    for timing in timings(listen, Loop(surrogate.ATan())):
        assert timing["sum_ttfs_length_steps"] == N_STEPS * timing["n_ttfs_pairs"]


@pytest.mark.parametrize("n_steps", [1, N_STEPS])
def test_two_thresholds_of_one_potential_are_no_branches(listen, n_steps):
    class Ternary(Loop):
        def forward(self, x):
            u, spikes = torch.zeros(BATCH, 8), []
            for frame in x[:n_steps]:
                u = 0.9 * u + 4 * self.fc(frame)
                positive = self.spike(u - 1.0)
                spikes.append(positive - self.spike(-u - 1.0))
                u = u - spikes[-1].detach()
            return torch.stack(spikes)

    assert [*timings(listen, Ternary(surrogate.ATan()))] == [None, None]


@pytest.mark.parametrize("cuts", [True, False])
def test_branches_of_a_loop_over_time_are_one_neuron(listen, cuts):
    class Branches(Loop):
        def forward(self, x):
            u, spikes = None, []
            for frame in x:
                if u is None:
                    u = self.fc(frame)
                    s = self.fire(u)
                else:
                    u = 0.9 * u + 4 * self.fc(frame)
                    s = self.spike(u - 1.0)
                u = u - (s.detach() if cuts else s)
                spikes.append(s)
            return torch.stack(spikes)

    for timing in timings(listen, Branches(surrogate.ATan())):
        assert timing["sum_ttfs_length_steps"] == N_STEPS * timing["n_ttfs_pairs"]


def test_nor_is_it_before_training_where_branches_may_be_layers(listen):
    net = nn.Sequential(Loop(spike := surrogate.ATan()), Loop(spike))
    heard = listen(net)
    heard.n_forwards = 1
    with torch.no_grad():
        net(3 * torch.rand(N_STEPS, BATCH, 8))
    assert "timing" not in heard.tables(*heard.spiking, "eval")


def test_the_time_to_the_first_spike_is_not_told_of_gates_that_share_a_surrogate(listen):
    assert [*timings(listen, Gates(surrogate.ATan()))] == [None, None]


def test_nor_of_layers_that_share_one(listen):
    spike = surrogate.ATan()
    assert [*timings(listen, nn.Sequential(Loop(spike), Loop(spike)))] == [None, None]


@pytest.mark.parametrize("n_layers", [1, 2])
def test_nor_of_the_gates_of_a_spiking_gru(listen, n_layers):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = rnn.SpikingGRU(8, 24, n_layers)

        def forward(self, x):
            return self.rnn(x)[0]

    assert [*timings(listen, Net())] == [None, None]
