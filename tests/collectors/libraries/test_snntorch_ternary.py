"""snntorch-ternary: spikes of both signs, two surrogates behind each, one potential."""

import pytest
import torch
from snntorch import SpikingNeuron, surrogate
from snntorch_ternary.neurons import TernaryLeaky
from torch import nn


@pytest.fixture(autouse=True)
def _no_neurons_of_other_tests():
    SpikingNeuron.init()


def test_it_is_told_from_snntorch(listen):
    heard = listen(nn.Sequential(TernaryLeaky(beta=0.9)))
    assert [o.layer.library for o in heard.observers.values()] == ["snntorch-ternary"]


class Derived(TernaryLeaky):
    """A user's own: it is held against what its functions make until its spikes are seen."""


# A node of one step may have the address of one that was freed before.
@pytest.mark.parametrize("neuron", [TernaryLeaky, Derived])
@pytest.mark.parametrize(("spike_grad", "size"), [(None, 2), (surrogate.atan(), 1)])
def test_a_training_of_two_layers_is_counted_by_sign_and_size(
    listen, told, spike_grad, size, neuron
):
    torch.manual_seed(0)
    net = nn.ModuleDict(
        {
            "fc1": nn.Linear(6, 8),
            "lif1": neuron(0.9, threshold=0.4, spike_grad=spike_grad),
            "fc2": nn.Linear(8, 3),
            "lif2": neuron(0.9, threshold=0.4, spike_grad=spike_grad),
        }
    )
    heard, seen = listen(net), told(net["lif2"])
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(2):
        mem1, mem2, outputs = net["lif1"].reset_mem(), net["lif2"].reset_mem(), []
        for x in 3 * torch.randn(5, 4, 6):
            hidden, mem1 = net["lif1"](net["fc1"](x), mem1)
            spikes, mem2 = net["lif2"](net["fc2"](hidden), mem2)
            outputs.append(spikes)
        optimizer.zero_grad()
        torch.stack(outputs).sum(0).square().sum().backward()
        optimizer.step()
    spikes = torch.stack(seen.spikes)
    tables = heard.tables("lif2")
    row, gradients = tables["spikes"], tables["gradients"]
    assert (row["n_obs"], row["n_neurons"]) == (2 * 5 * 4, 3)
    assert row["n_positive"] == (spikes > 0).sum() > 0
    assert row["n_spikes"] - row["n_positive"] == (spikes < 0).sum() > 0
    assert row["sum_abs_spike"] == spikes.abs().sum()
    assert spikes.abs().max() == size
    assert seen.starts == [True, *[False] * 4] * 2
    u = seen.potentials
    slope = sum(1 / (1 + (torch.pi * side) ** 2) for side in (u - 0.4, -u - 0.4))
    assert gradients["n_sg"] == slope.numel() == gradients["n_grad"]
    assert gradients["sum_sg"] == pytest.approx(slope.sum().item(), rel=1e-5)


def test_the_potential_is_what_both_surrogates_saw(told, dynamics):
    torch.manual_seed(1)
    neuron = TernaryLeaky(0.9, threshold=0.5, init_hidden=True)
    seen = told(neuron)
    for x in torch.randn(6, 4, 5, requires_grad=True):
        neuron(x)
    at_nodes = iter(seen.saved)
    for membrane, positive, negative in zip(seen.membranes, at_nodes, at_nodes, strict=True):
        assert membrane.pre_reset
        torch.testing.assert_close(membrane.potential - 0.5, positive)
        torch.testing.assert_close(-membrane.potential - 0.5, negative)
    found = dynamics(neuron)
    assert (found.threshold, found.decay, found.reset) == (0.5, pytest.approx(0.9), "subtract")
    assert found.surrogate == "ATanSurrogate(alpha=2)"
