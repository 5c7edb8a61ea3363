"""Neurons of a user's own that have parts: a surrogate as a module, an activation to train with."""

import pytest
import snntorch as snn
import torch
from torch import nn

from .own_neurons import Heaviside


BATCH, N_STEPS = 8, 5


class Straight(nn.Module):
    """A surrogate by a detach trick, as a module of its own (Dspike)."""

    def __init__(self, region=1.0):
        super().__init__()
        self.region = region

    def forward(self, x, steepness):
        soft = torch.tanh(steepness * x.clamp(-self.region, self.region)) / 2 + 0.5
        return ((x >= 0).float() - soft).detach() + soft


class Neuron(nn.Module):
    """As in the repositories of surrogate_module_learning and STMixer: a twin for an ANN within."""

    def __init__(self, *, use_ann=False):
        super().__init__()
        self.act_ann, self.snn_act, self.norm = nn.ReLU(), Straight(), nn.BatchNorm1d(16)
        self.thresh, self.tau, self.use_ann = 1.0, 0.5, use_ann

    def forward(self, x):
        if self.use_ann:
            return self.act_ann(x)
        x = self.norm(x).view(N_STEPS, -1, *x.shape[1:])
        mem, spikes = 0, torch.zeros_like(x)
        for t in range(N_STEPS):
            mem = mem * self.tau + x[t, ...]
            spike = self.snn_act(mem - self.thresh, 2.5)
            spikes[t, ...] = spike
            mem = mem * (1 - spike)
        return spikes.view(-1, *spikes.shape[2:])


def run(listen, *layers):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), *layers, nn.Linear(16, 2))
    heard = listen(net)
    out = nn.Sequential(*net[:-1])(4 * torch.rand(N_STEPS * BATCH, 6))
    out.sum().backward()
    return heard, out.detach()


def test_a_surrogate_that_is_a_module_makes_its_neuron_no_block(listen):
    heard, spikes = run(listen, Neuron())
    assert [(x.name, x.kind) for x in heard.confirmed] == [("1", "spiking")]
    rows = heard.tables("1")
    assert rows["spikes"]["n_spikes"] == spikes.count_nonzero() > 0
    assert (rows["spikes"]["n_neurons"], rows["spikes"]["n_obs"]) == (16, N_STEPS * BATCH)
    assert rows["dynamics"]["sum_threshold"] == 1.0


def test_the_same_module_makes_no_spikes_where_its_activation_is_at_work(listen):
    heard, _ = run(listen, Neuron(use_ann=True))
    assert heard.spiking == []
    assert "takes many values" in heard.notes[0][1]


class Block(nn.Module):
    """Has a threshold for the neurons in it."""

    def __init__(self, neuron):
        super().__init__()
        self.threshold, self.neuron, self.drop = 1.0, neuron, nn.Dropout(0.0)

    def forward(self, x):
        return self.drop(self.neuron(x))


def snn_leaky():
    return snn.Leaky(beta=0.9, init_hidden=True)


@pytest.mark.parametrize("neuron", [Neuron, Heaviside, snn_leaky])
def test_of_a_block_with_a_threshold_the_neuron_within_is_the_layer(listen, neuron):
    heard, spikes = run(listen, Block(neuron()))
    assert heard.spiking == ["1.neuron"]
    assert heard.tables("1.neuron")["spikes"]["n_spikes"] == spikes.count_nonzero() > 0
    assert not heard.notes


def test_a_network_with_a_threshold_is_none_of_its_layers(listen):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.thresh, self.fc, self.lif = 1.0, nn.Linear(6, 16), Neuron()

        def forward(self, x):
            return self.lif(self.fc(x))

    torch.manual_seed(0)
    heard = listen(net := Net())
    net(4 * torch.rand(N_STEPS * BATCH, 6)).sum().backward()
    assert heard.spiking == ["lif"]
