"""Spikes on several levels are told from spikes with an amplitude, and are no runaway."""

import pytest
import torch
from torch import nn

import spikewatch

from ..own_neurons import Levels


class MultiLevel(nn.Module):
    """A neuron whose spikes are 0 to 4 times `unit` (LM-HT), or without levels 0 and `unit`."""

    def __init__(self, unit, *, one_size=False):
        super().__init__()
        self.threshold, self.v, self.unit, self.one_size = 1.0, 0.0, unit, one_size

    def reset(self):
        self.v = 0.0

    def forward(self, x):
        self.v = 0.5 * self.v + x
        n = Levels.apply(self.v / self.threshold)
        self.v = self.v - n.detach() * self.threshold
        return (n.clamp(max=1) if self.one_size else n) * self.unit


def spikes_of(listen, neuron):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), neuron)
    heard = listen(net)
    for step in range(2):
        heard.step = step
        neuron.reset()
        heard.n_forwards += 1
        sum(net(3 * torch.randn(32, 8)) for _ in range(4)).sum().backward()
    return heard.flush("1", "spikes")


@pytest.mark.parametrize("unit", [1.0, 0.25, torch.tensor([0.5, 1.0] * 8)])
def test_spikes_of_several_sizes_are_told_from_those_of_one(listen, unit):
    assert spikes_of(listen, MultiLevel(unit))["is_multilevel"] == 1
    assert not spikes_of(listen, MultiLevel(unit, one_size=True))["is_multilevel"]


class Sequence(MultiLevel):
    def forward(self, x):
        return torch.stack([super(Sequence, self).forward(current) for current in x])


def test_amplitudes_of_time_steps_are_no_levels(listen):
    torch.manual_seed(0)
    of_steps = torch.linspace(0.5, 2.0, 4)[:, None, None]
    for one_size in (True, False):
        neuron = Sequence(1.0, one_size=one_size)
        net = nn.Sequential(nn.Linear(8, 16), neuron)
        neuron.register_forward_hook(lambda _m, _x, spikes: spikes * of_steps)
        heard = listen(net)
        net(3 * torch.randn(4, 32, 8)).sum().backward()
        assert bool(heard.flush("1", "spikes")["is_multilevel"]) != one_size


def alerts_of(tmp_path, neuron, grow=1.0):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), neuron, nn.Linear(16, 3))
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    with spikewatch.attach(net, run="r", dir=tmp_path, every=1):
        for step in range(60):
            neuron.reset()
            neuron.unit *= grow if step > 40 else 1.0
            sum(net(3 * torch.randn(32, 8)) for _ in range(4)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    with spikewatch.open_store(tmp_path) as store:
        told = store.sql("SELECT rule FROM alerts WHERE state = 'firing'")["rule"]
    return "spikes-out-of-range" in told


@pytest.mark.parametrize("unit", [0.1, 2.0])
def test_levels_are_out_of_range_where_they_run_away_only(tmp_path, unit):
    assert not alerts_of(tmp_path / "healthy", MultiLevel(unit))
    assert alerts_of(tmp_path / "runaway", MultiLevel(unit), grow=1.5)
    assert alerts_of(tmp_path / "amplitude", MultiLevel(5.0, one_size=True))
