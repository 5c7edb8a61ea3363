"""BindsNET: no hook sees its layers; what `attach` says of it works."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

import spikewatch


@pytest.fixture(name="bindsnet", scope="module")
def _bindsnet():
    """Its networks. Plots, data sets and games want OpenCV, gymnasium and torchvision."""
    unused = ("analysis", "datasets", "environment", "evaluation", "models", "pipeline")
    with pytest.MonkeyPatch.context() as patch:
        for part in (*unused, "preprocessing"):
            patch.setitem(sys.modules, f"bindsnet.{part}", ModuleType(f"bindsnet.{part}"))
        import bindsnet.network

        yield bindsnet.network


def network(bindsnet):
    """Input and leaky neurons, recorded by BindsNET's own monitor."""
    net = bindsnet.Network(dt=1.0)
    source = bindsnet.nodes.Input(n=6, traces=True)
    target = bindsnet.nodes.LIFNodes(n=4, tc_decay=20.0, thresh=-60.0)
    net.add_layer(source, name="X")
    net.add_layer(target, name="Y")
    net.add_connection(
        bindsnet.topology.Connection(source, target, w=4 * torch.rand(6, 4)), "X", "Y"
    )
    monitor = bindsnet.monitors.Monitor(target, ["s"], time=10)
    net.add_monitor(monitor, name="Y")
    return net, monitor


class Watched(nn.Module):
    """What the note says: a forward that runs the network and taps what was recorded."""

    def __init__(self, network, monitor):
        super().__init__()
        self.network, self.monitor = network, monitor

    def forward(self, spikes):
        self.network.run({"X": spikes}, time=len(spikes))
        recorded = self.monitor.get("s")
        for s in recorded:
            spikewatch.tap("Y", s)
        return recorded


def test_attach_says_what_to_do(bindsnet, tmp_path, capsys):
    net, _ = network(bindsnet)
    with spikewatch.attach(net, dir=tmp_path):
        told = capsys.readouterr().out
    for name in ("X", "Y"):
        (line,) = (x for x in told.splitlines() if x.startswith(f"  {name} "))
        assert "bindsnet." in line
        assert "no hook sees it" in line
        assert "spikewatch.tap(name, s)" in line


def test_what_it_says_gives_the_right_figures(bindsnet, tmp_path):
    torch.manual_seed(0)
    net, monitor = network(bindsnet)
    model, counted = Watched(net, monitor), []
    with spikewatch.attach(model, dir=tmp_path, every=1, quiet=True):
        for _ in range(3):
            recorded = model((torch.rand(10, 2, 6) < 0.5).byte())
            assert recorded.shape == (10, 2, 4)
            counted.append(int(recorded.sum()))
            net.reset_state_variables()
    assert min(counted) > 0
    rows = spikewatch.open_store(tmp_path).sql(
        "SELECT step, n_obs, n_neurons, n_spikes FROM spikes WHERE layer = 'Y' ORDER BY step"
    )
    assert rows.rows() == [(i, 20, 4, n) for i, n in enumerate(counted)]


def test_parameters_are_the_nodes_own(bindsnet, dynamics):
    net, _ = network(bindsnet)
    layer = net.layers["Y"]
    found = dynamics(layer)
    assert (found.threshold.item(), found.reset) == (-60.0, "zero")
    torch.testing.assert_close(found.decay, torch.tensor(-1 / 20).exp())
    net.run({"X": torch.zeros(1, 1, 6)}, time=1)  # sets the batch
    layer.v.fill_(-62.0)
    net.run({"X": torch.zeros(1, 1, 6)}, time=1)
    leaked = (layer.v - layer.rest) / (-62.0 - layer.rest)
    torch.testing.assert_close(leaked[0, 0], found.decay)
