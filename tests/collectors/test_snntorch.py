"""snnTorch's own neurons, in its own style of loop, against figures taken from the tensors."""

import pytest
import snntorch as snn
import torch
from snntorch import surrogate
from torch import nn


def test_a_loop_over_time_counts_every_step_and_sample(listen):
    torch.manual_seed(0)
    net = nn.ModuleDict({"fc": nn.Linear(8, 5), "lif": snn.Leaky(beta=0.9)})
    heard = listen(net)
    mem, seen = net["lif"].init_leaky(), []
    for x in 3 * torch.rand(7, 4, 8):
        spikes, mem = net["lif"](net["fc"](x), mem)
        seen.append(spikes)
    spikes = torch.stack(seen)
    row = heard.flush("lif", "spikes")
    assert row["n_obs"] == 7 * 4
    assert row["n_neurons"] == 5
    assert row["n_spikes"] == spikes.count_nonzero() > 0
    assert row["n_positive"] == row["n_spikes"] == row["sum_abs_spike"]
    assert row["n_nonfinite_spikes"] == 0


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_the_surrogate_slope_is_the_analytic_one(listen, threshold):
    torch.manual_seed(1)
    lif = snn.Leaky(beta=0.8, threshold=threshold, spike_grad=surrogate.atan(alpha=2.0))
    net = nn.Sequential(lif)
    heard = listen(net)
    mem, slopes = lif.init_leaky(), []
    for current in torch.randn(6, 3, 4, requires_grad=True):
        _, mem = lif(current, mem)
        u = lif.mem.detach() - threshold
        slopes.append(1 / (1 + (torch.pi * u) ** 2))
    expected = torch.stack(slopes)
    row = heard.flush("0", "gradients")
    assert row["n_sg"] == expected.numel()
    assert row["sum_sg"] == pytest.approx(expected.sum().item(), rel=1e-5)
    assert row["n_sg_active"] == (expected > 0.01).sum()
    assert row["n_carrying"] == (expected > 0.01).any(0).any(0).sum()
    assert row["n_sg_neurons"] == 4


def test_the_gradient_at_the_spikes_is_autograds(listen):
    torch.manual_seed(2)
    lif = snn.Leaky(beta=0.5, init_hidden=True)
    net = nn.Sequential(nn.Linear(6, 3), lif)
    heard = listen(net)
    outputs = [net(x) for x in torch.rand(5, 2, 6)]
    for spikes in outputs:
        spikes.retain_grad()
    weight = torch.randn(5, 2, 3)
    (torch.stack(outputs) * weight).sum().backward()
    row = heard.flush("1", "gradients")
    expected = sum(s.grad.square().sum().item() for s in outputs)
    assert row["n_grad"] == 30
    assert row["sum_sq_grad"] == pytest.approx(expected, rel=1e-6)


def test_bare_tensors_and_synaptic_tuples_are_both_read(listen):
    net = nn.Sequential(snn.Leaky(beta=0.9, init_hidden=True), snn.Synaptic(0.9, 0.8))
    heard = listen(net)
    spikes = net[0](torch.full((2, 3), 2.0))
    net[1](5 * spikes)
    assert heard.flush("0", "spikes")["n_spikes"] == 6
    assert heard.flush("1", "spikes")["n_obs"] == 2


def test_evaluation_is_kept_apart(listen):
    net = nn.Sequential(snn.Leaky(beta=0.9, init_hidden=True))
    heard = listen(net)
    with torch.no_grad():
        net(torch.full((3, 2), 2.0))
    assert heard.flush("0", "spikes", "train") is None
    assert heard.flush("0", "spikes", "eval")["n_obs"] == 3


def test_real_valued_neurons_are_left_out(listen):
    net = nn.Sequential(snn.AssociativeLeaky(4, 2, 2, 4), snn.Leaky(beta=0.9))
    assert list(listen(net).observers) == ["1"]


def test_a_trainable_amplitude_is_reported(listen):
    lif = snn.Leaky(
        beta=0.9, init_hidden=True, graded_spikes_factor=4.0, learn_graded_spikes_factor=True
    )
    heard = listen(nn.Sequential(lif))
    lif(torch.full((2, 3), 2.0))
    row = heard.flush("0", "amplitudes")
    assert row["n_amplitudes"] == 1
    assert row["sum_amplitude"] == 4.0
    assert row["n_amplitudes_out"] == 1


def test_spikes_that_the_loss_does_not_use_have_no_gradient_elements(listen):
    net = nn.ModuleDict({"hidden": snn.Leaky(beta=0.9), "readout": snn.Leaky(beta=0.9)})
    heard = listen(net)
    spikes, _ = net["hidden"](torch.rand(3, 4, requires_grad=True), torch.zeros(3, 4))
    _, mem = net["readout"](spikes, torch.zeros(3, 4))
    mem.sum().backward()
    assert heard.flush("hidden", "gradients")["n_grad"] == 12
    assert heard.flush("readout", "gradients")["n_grad"] == 0
