"""snnTorch's neurons at several sites, and within one another."""

import pytest
import snntorch as snn
import torch
from torch import nn


@pytest.fixture(autouse=True)
def _no_neurons_of_other_tests():
    """snnTorch keeps every neuron ever made in a list, and resets all of them at once."""
    snn.SpikingNeuron.init()


def test_a_neuron_that_two_sites_share_is_counted_at_each(listen, dynamics):
    shared = snn.Leaky(beta=0.5, learn_threshold=True)
    net = nn.ModuleDict({"lif": shared})
    heard = listen(net)
    shared(torch.full((4, 10), 2.0), torch.zeros(4, 10))
    shared(torch.full((4, 6), 2.0), torch.zeros(4, 6))
    counts = heard.observers["lif"].flush("train")
    assert counts.sites.keys() == {"@2"}
    assert heard.confirmed[0].name == "lif@2"
    assert set(dynamics(shared).learnable) == {"threshold"}


def test_a_further_site_is_one_layer_in_training_and_evaluation(listen):
    shared = snn.Leaky(beta=0.5)
    heard = listen(nn.ModuleDict({"lif": shared}))
    for phase in ("train", "eval", "train"):
        heard.forced_phase = phase
        for n in (10, 6):
            shared(torch.ones(4, n), torch.zeros(4, n))
        assert heard.observers["lif"].flush(phase).sites.keys() == {"@2"}
    assert [layer.name for layer in heard.confirmed] == ["lif@2"]


@pytest.mark.parametrize("n_sites", [1, 2, 3])
def test_no_time_to_first_spike_is_told_of_sites_of_one_shape_that_take_turns(listen, n_sites):
    shared, drive = snn.Leaky(beta=0.9), torch.full((4, 6), 0.4, requires_grad=True)
    heard = listen(nn.ModuleDict({"lif": shared}))
    for _ in range(2):  # two batches of a step
        mems = [torch.zeros(4, 6) for _ in range(n_sites)]
        for _ in range(5):
            for site in range(n_sites):
                _, mems[site] = shared(drive, mems[site])
    tables = heard.tables("lif")
    assert tables["spikes"]["n_obs"] == 2 * 5 * n_sites * 4
    assert ("timing" in tables) == (n_sites == 1) == (not heard.notes)
    assert all("several sites" in text for _, text in heard.notes)


def test_samples_of_one_call_each_take_no_turns(listen):
    shared, drive = snn.Leaky(beta=0.9), torch.full((4, 6), 2.0, requires_grad=True)
    heard = listen(nn.ModuleDict({"lif": shared}))
    for _ in range(3):
        shared(drive, torch.zeros(4, 6))
    assert heard.flush("lif", "timing")["n_ttfs_pairs"] == 3 * 24
    assert not heard.notes


class Inhibitory(nn.Module):
    """A population of its own, within the recurrent connection of another one."""

    def __init__(self, n):
        super().__init__()
        self.down, self.up = nn.Linear(n, 3), nn.Linear(3, n)
        self.lif = snn.Leaky(beta=0.7, threshold=0.2, init_hidden=True)

    def forward(self, spikes):
        return self.up(self.lif(self.down(spikes)))


class ExInhibitory(snn.RLeaky):
    def __init__(self, n):
        super().__init__(beta=0.9, threshold=0.5, all_to_all=True, linear_features=n)
        self.recurrent = Inhibitory(n)


class Ordinary(snn.RLeaky):
    def __init__(self, n):
        super().__init__(beta=0.9, threshold=0.5, all_to_all=True, linear_features=n)


class Wrapper(snn.Leaky):
    """Derived from a neuron, and returns what another one within it makes."""

    def __init__(self):
        super().__init__(beta=0.9)
        self.mine = snn.Leaky(beta=0.9, threshold=0.5, init_hidden=True)

    def forward(self, x):
        return self.mine(x)


def test_a_neuron_that_a_user_put_into_a_neuron_is_a_layer_of_its_own(listen):
    torch.manual_seed(0)
    block = ExInhibitory(5)
    inner, counted = block.recurrent.lif, []
    inner.register_forward_hook(lambda *call: counted.append(call[2]))
    heard = listen(nn.ModuleList([block]))
    assert heard.spiking == ["0", "0.recurrent.lif"]
    (spikes, mem), seen = block.init_rleaky(), []
    for x in 3 * torch.rand(6, 4, 5, requires_grad=True):
        spikes, mem = block(x, spikes, mem)
        seen.append(spikes)
    assert heard.flush("0", "spikes")["n_spikes"] == torch.stack(seen).count_nonzero() > 0
    row = heard.flush("0.recurrent.lif", "spikes")
    assert row["n_spikes"] == torch.stack(counted).count_nonzero() > 0
    assert row["n_neurons"] == 3


def test_a_neuron_that_returns_the_spikes_of_the_one_within_is_no_second_layer(listen):
    torch.manual_seed(0)
    net = nn.Sequential(Wrapper())
    heard = listen(net)
    spikes = net(3 * torch.rand(4, 5, requires_grad=True))
    assert heard.flush("0", "spikes") is None
    assert heard.flush("0.mine", "spikes")["n_spikes"] == spikes.count_nonzero() > 0


def test_what_a_library_builds_into_its_neurons_is_no_layer(listen):
    assert listen(nn.Sequential(Ordinary(5))).spiking == ["0"]
