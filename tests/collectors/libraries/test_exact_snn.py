"""exact-snn: times of spikes, neurons first, no surrogate."""

import math

import pytest
import torch
from exact_snn import ExactTTFSLinear, ExactTTFSNetwork, latency_encode
from exact_snn.event import ExactEventLinear
from exact_snn.extended import ExactMultiSpike, ExactTTFSConv2d
from exact_snn.recurrent import ExactTTFSRnn
from torch import nn


def test_a_training_is_counted_by_which_neurons_fire_at_all(listen, told):
    torch.manual_seed(0)
    net = ExactTTFSNetwork([6, 8, 3], grid_pts=201, bias_val=0.9)
    heard, seen = listen(net), told(net.layers[0])
    assert [o.layer.library for o in heard.observers.values()] == ["exact-snn", "exact-snn"]
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(2):
        times = latency_encode(torch.rand(5, 6), net.t_max).reshape(6, 5)
        optimizer.zero_grad()
        net.loss(times, torch.tensor([0, 1, 2, 0, 1])).backward()
        optimizer.step()
    tables, times = heard.tables("layers.0"), torch.cat(seen.spikes, 1)
    assert times.shape == (8, 10)
    fired = times.isfinite()
    assert 0 < fired.sum() < fired.numel()
    row = tables["spikes"]
    assert (row["n_obs"], row["n_neurons"]) == (10, 8)
    assert row["n_spikes"] == row["sum_abs_spike"] == fired.sum()
    assert row["n_nonfinite_spikes"] == 0  # never fired is no fault
    assert tables["gradients"]["n_grad"] == 80
    assert "n_sg" not in tables["gradients"]  # there is no surrogate


@pytest.mark.parametrize(
    ("layer", "shape", "n_obs", "n_neurons"),
    [
        (ExactEventLinear(4, 6), (4, 7), 7, 6),
        (ExactTTFSConv2d(2, 3, 3, bias_val=1.5), (7, 2, 5, 5), 7, 27),
        (ExactTTFSRnn(4, 6, grid_pts=101), (4, 7, 3), 21, 6),
    ],
)
def test_axes_are_those_of_each_layer(listen, told, dynamics, layer, shape, n_obs, n_neurons):
    torch.manual_seed(1)
    heard, seen = listen(nn.Sequential(layer)), told(layer)
    layer(20 * torch.rand(shape))
    row = heard.flush("0", "spikes")
    assert (row["n_obs"], row["n_neurons"]) == (n_obs, n_neurons)
    assert row["n_spikes"] == seen.spikes[0].isfinite().sum() > 0
    assert dynamics(layer).threshold == 1.0


def test_a_silent_net_is_silent(listen):
    layer = ExactTTFSLinear(4, 3, bias_val=0.0, w_scale=0.0)
    heard = listen(nn.Sequential(layer))
    assert (layer(torch.rand(4, 6)) == math.inf).all()
    row = heard.flush("0", "spikes")
    assert (row["n_obs"], row["n_spikes"], row["n_nonfinite_spikes"]) == (6, 0, 0)


def test_several_times_a_neuron_are_not_taken_for_spikes(listen):
    layer = ExactMultiSpike(4, 6, grid_pts=101)  # [N, B, K]
    assert listen(nn.Sequential(layer, ExactTTFSLinear(6, 2))).spiking == ["1"]
