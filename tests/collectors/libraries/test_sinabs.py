"""sinabs: batch first, several spikes a step, squeezed batches."""

import pytest
import torch
from sinabs import layers
from torch import nn


@pytest.mark.parametrize("squeezed", [False, True])
def test_squeezed_and_plain_layers_give_the_same_figures(listen, squeezed):
    torch.manual_seed(0)
    neuron = layers.IAFSqueeze(batch_size=3) if squeezed else layers.IAF()
    net = nn.Sequential(neuron)
    heard = listen(net)
    x = 3 * torch.rand(3, 7, 5)
    out = net(x.flatten(0, 1) if squeezed else x)
    row = heard.flush("0", "spikes")
    assert (row["n_obs"], row["n_neurons"]) == (21, 5)
    assert row["n_spikes"] == out.count_nonzero()
    assert row["sum_abs_spike"] == out.sum() > row["n_spikes"]  # several spikes in a step


def test_the_slope_is_read_at_every_step(listen):
    torch.manual_seed(1)
    net = nn.Sequential(layers.LIF(tau_mem=10.0))
    heard = listen(net)
    net(5 * torch.rand(2, 6, 4, requires_grad=True)).sum().backward()
    row = heard.flush("0", "gradients")
    assert (row["n_sg"], row["n_sg_neurons"], row["n_grad"]) == (48, 4, 48)


def test_layers_that_do_not_spike_are_left_out(listen):
    assert list(listen(nn.Sequential(layers.ExpLeak(10.0), layers.LIF(10.0))).observers) == ["1"]
