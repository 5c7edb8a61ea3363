"""What is wrong with a model's structure is told, and what is right is not."""

import pytest
import snntorch as snn
import torch
from torch import nn

import spikewatch


class Net(nn.Module):
    def __init__(self, *, cut=False):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(8, 16), snn.Leaky(beta=0.9)
        self.fc2, self.lif2 = nn.Linear(16, 16), snn.Leaky(beta=0.9)
        self.fc3, self.lif3 = nn.Linear(16, 4), snn.Leaky(beta=0.9)
        self.cut = cut

    def forward(self, x):
        zero = torch.zeros
        spikes, _ = self.lif1(self.fc1(x), zero(len(x), 16))
        spikes, _ = self.lif2(self.fc2(spikes.detach() if self.cut else spikes), zero(len(x), 16))
        _, mem = self.lif3(self.fc3(spikes), zero(len(x), 4))
        return mem


def train(net, tmp_path, *, n_steps, learns=None):
    torch.manual_seed(0)
    optimizer = torch.optim.SGD((learns or net).parameters(), 0.01)
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        for _ in range(n_steps):
            optimizer.zero_grad()
            net(8 * torch.rand(32, 8)).square().sum().backward()
            optimizer.step()
    with spikewatch.open_store(tmp_path) as store:
        fired = store.sql("SELECT DISTINCT rule, layer FROM alerts WHERE state = 'firing'")
        notes = store.sql("SELECT message FROM events WHERE kind = 'note'")
    return set(fired.rows()), notes["message"].to_list()


def test_a_detached_layer_fires_and_a_readout_that_uses_its_membrane_does_not(tmp_path):
    fired, _ = train(Net(cut=True), tmp_path, n_steps=12)
    assert [layer for rule, layer in fired if rule == "detached-layer"] == ["lif1"]


def test_a_sound_structure_is_not_complained_of(tmp_path):
    fired, notes = train(Net(), tmp_path, n_steps=12)
    assert not notes
    assert not {rule for rule, _ in fired} & {"detached-layer", "negative-surrogate"}


class Compares(nn.Module):
    """A neuron without a surrogate gradient, as beginners write it."""

    def __init__(self):
        super().__init__()
        self.threshold, self.mem = 0.5, 0.0

    def forward(self, x):
        self.mem = x
        return (self.mem >= self.threshold).float()


@pytest.mark.parametrize("reservoir", [False, True])
def test_neurons_without_a_surrogate_are_told_unless_nothing_before_them_is_to_learn(
    tmp_path, reservoir
):
    net = nn.Sequential(nn.Linear(8, 16), Compares(), nn.Linear(16, 16), Compares())
    net.append(nn.Linear(16, 4))
    fired, _ = train(net, tmp_path, n_steps=8, learns=net[4] if reservoir else net)
    told = {layer for rule, layer in fired if rule == "no-surrogate-gradient"}
    assert told == (set() if reservoir else {"1", "3"})


def test_a_surrogate_that_is_negative_above_the_threshold_is_told(tmp_path):
    net = Net()
    net.lif1.spike_grad = snn.surrogate.triangular()
    fired, _ = train(net, tmp_path, n_steps=8)
    assert ("negative-surrogate", "lif1") in fired


def test_a_readout_that_never_fires_is_no_dead_layer_and_a_hidden_layer_is(tmp_path):
    def fired(quiet):
        torch.manual_seed(1)
        net = Net()
        getattr(net, quiet).threshold.fill_(1000.0)
        return train(net, tmp_path / quiet, n_steps=106)[0]

    assert ("dead-layer", "lif3") not in fired("lif3")
    assert ("dead-layer", "lif2") in fired("lif2")


class TwoHeads(nn.Module):
    """An autoencoder that is read by its membrane, and a classifier behind it by its spikes."""

    def __init__(self, theta):
        super().__init__()
        self.fc, self.lif = nn.Linear(8, 16), snn.Leaky(beta=0.9)
        self.rebuild, self.readout = nn.Linear(16, 8), snn.Leaky(beta=0.9, threshold=theta)
        self.classify, self.out = nn.Linear(16, 4), snn.Leaky(beta=0.9)

    def forward(self, x):
        mem1, mem2, mem3, n = (*(torch.zeros(len(x), k) for k in (16, 8, 4)), 0)
        for _ in range(4):
            spikes, mem1 = self.lif(self.fc(x), mem1)
            _, mem2 = self.readout(self.rebuild(spikes), mem2)
            s, mem3 = self.out(self.classify(spikes), mem3)
            n = n + s
        return torch.cat([mem2 - x, n - 1], -1) / 100


@pytest.mark.parametrize("theta", [1.0, 20_000.0])
def test_a_readout_by_its_membrane_is_healthy_wherever_it_is_defined(tmp_path, theta):
    torch.manual_seed(1)
    fired, _ = train(TwoHeads(theta), tmp_path, n_steps=106)
    assert not [rule for rule, layer in fired if layer == "readout"]


def test_a_layer_that_is_called_now_and_then_is_told_once_to_be_maybe_unused(tmp_path):
    class Sometimes(Net):
        def __init__(self):
            super().__init__()
            self.extra, self.n_calls = snn.Leaky(beta=0.9), 0

        def forward(self, x):
            self.n_calls += 1
            if self.n_calls % 6 == 1:
                self.extra(x, torch.zeros(len(x), 8))
            return super().forward(x)

    _, notes = train(Sometimes(), tmp_path, n_steps=12)
    (note,) = (text for text in notes if "not called" in text)
    assert note.startswith("'extra': not called in the latest 4 observed steps. Either forward")
