"""SpikingJelly 2.0's own neurons, single-step and multi-step."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer, monitor, neuron, surrogate
from torch import nn


@pytest.mark.parametrize("mode", ["s", "m"])
def test_single_step_and_multi_step_give_the_same_figures(listen, mode):
    torch.manual_seed(0)
    net = nn.Sequential(layer.Linear(6, 5), neuron.LIFNode(tau=2.0))
    functional.set_step_mode(net, mode)
    heard = listen(net)
    x = 4 * torch.rand(8, 3, 6)
    out = net(x) if mode == "m" else torch.stack([net(frame) for frame in x])
    out.sum().backward()
    rows = heard.tables("1")
    spikes, gradients = rows["spikes"], rows["gradients"]
    assert (spikes["n_obs"], spikes["n_neurons"]) == (24, 5)
    assert spikes["n_spikes"] == out.count_nonzero() > 0
    assert gradients["n_sg"] == 8 * 3 * 5
    assert gradients["n_sg_neurons"] == 5


def test_the_slope_is_that_of_the_membrane_before_the_reset(listen):
    torch.manual_seed(1)
    node = neuron.IFNode(surrogate_function=surrogate.ATan(alpha=2.0), v_reset=None)
    heard = listen(nn.Sequential(node))
    currents, v, expected = torch.rand(6, 2, 3, requires_grad=True), torch.zeros(2, 3), 0.0
    for current in currents:
        spikes = node(current)
        u = v + current.detach()
        expected += (1 / (1 + (torch.pi * (u - 1.0)) ** 2)).sum().item()
        v = u - spikes.detach()
    assert heard.flush("0", "gradients")["sum_sg"] == pytest.approx(expected, rel=1e-5)


def test_the_rate_agrees_with_spikingjellys_own_monitor(listen):
    torch.manual_seed(2)
    net = nn.Sequential(layer.Linear(6, 9), neuron.ParametricLIFNode(), layer.Linear(9, 4))
    functional.set_step_mode(net, "m")
    heard = listen(net)
    theirs = monitor.OutputMonitor(net, neuron.BaseNode, lambda s: s.mean().item())
    net(5 * torch.rand(10, 4, 6))
    row = heard.flush("1", "spikes")
    rate = row["n_spikes"] / (row["n_obs"] * row["n_neurons"])
    assert rate == pytest.approx(theirs.records[0], rel=1e-6)
    theirs.remove_hooks()


def test_a_lone_neuron_is_one_layer_and_its_surrogate_is_none(listen):
    assert list(listen(neuron.LIFNode()).observers) == [""]


def test_the_readout_is_not_a_spiking_layer(listen):
    net = nn.Sequential(neuron.LIFNode(), neuron.NonSpikingLIFNode())
    assert list(listen(net).observers) == ["0"]


def test_neurons_outside_the_base_class_are_found(listen):
    net = nn.Sequential(layer.Linear(4, 3), neuron.PSN(T=5, surrogate_function=surrogate.ATan()))
    functional.set_step_mode(net, "m")
    heard = listen(net)
    out = net(torch.randn(5, 2, 4))
    row = heard.flush("1", "spikes")
    assert (row["n_obs"], row["n_neurons"]) == (10, 3)
    assert row["n_spikes"] == out.count_nonzero()


def test_ternary_spikes_are_counted_by_sign(listen):
    torch.manual_seed(3)
    node = neuron.TernaryIFNode()
    heard = listen(nn.Sequential(node))
    out = torch.stack([node(x) for x in 3 * torch.randn(6, 2, 4)])
    row = heard.flush("0", "spikes")
    assert row["n_positive"] == (out > 0).sum()
    assert row["n_spikes"] - row["n_positive"] == (out < 0).sum() > 0


def test_slopes_in_bfloat16_are_added_up_in_full_precision(listen):
    torch.manual_seed(4)
    node = neuron.IFNode(surrogate_function=surrogate.ATan(alpha=2.0), step_mode="m")
    heard = listen(nn.Sequential(node))
    x = torch.rand(4, 64, 100).bfloat16().requires_grad_()
    node(x)
    row = heard.flush("0", "gradients")
    functional.reset_net(node)
    full = listen(nn.Sequential(node))
    node(x.detach().float().requires_grad_())
    full = full.flush("0", "gradients")
    assert row["sum_sg"] == pytest.approx(full["sum_sg"], rel=5e-3)
