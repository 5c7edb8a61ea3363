"""Parts that are scripted: left alone, and no reason to fail."""

import snntorch as snn
import torch
from torch import nn
from torch.jit import _recursive

import spikewatch

from .little_nets import TernaryLinear


class Mix(torch.jit.ScriptModule):
    """As RWKV's code has it, and SpikeGPT's."""

    def __init__(self):
        super().__init__()
        self.key = nn.Linear(8, 8)
        self.decay = nn.Parameter(torch.ones(8))

    @torch.jit.script_method
    def forward(self, x):
        return torch.square(torch.relu(self.key(x))) * self.decay


def test_a_model_with_parts_that_are_script_modules_is_watched(tmp_path):
    def train(net):
        torch.manual_seed(1)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(3):
            net[2].reset_mem()
            net(torch.rand(4, 8)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return list(net.parameters())

    def build():
        torch.manual_seed(0)
        scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
        lif = snn.Leaky(beta=0.9, init_hidden=True)
        return nn.Sequential(Mix(), scripted, lif, TernaryLinear(8, 2))

    expected, net = train(build()), build()
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        got = train(net)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)
    with spikewatch.open_store(tmp_path) as store:
        rows = store.sql("SELECT layer, n_obs FROM spikes ORDER BY step").rows()
        faults = store.sql("FROM events WHERE kind = 'fault'")
    assert rows == [("2", 4)] * 3
    assert faults.is_empty()


class Step(nn.Module):
    """A neuron that TorchScript can compile."""

    def forward(self, x):
        return (x > 0).to(x.dtype)


def doubled(self, input: tuple[torch.Tensor], output: torch.Tensor):
    return 2 * output


def test_a_watched_model_is_scripted_as_without_us_and_trains_on(tmp_path):
    net, x = nn.Sequential(nn.Linear(8, 6), Step(), nn.Linear(6, 2)), torch.rand(4, 8)
    net[0].register_forward_hook(doubled)  # the user's own is compiled
    expected = torch.jit.script(net)(x)
    asked = dict(vars(_recursive))
    watch = spikewatch.attach(net, dir=tmp_path, every=1, quiet=True, layers=["1"])
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    scripted = torch.jit.script(net)
    assert torch.equal(scripted(x), expected)
    for _ in range(3):
        net(x).sum().backward()
        optimizer.step()
    scripted = torch.jit.script(net)
    assert torch.equal(scripted(x), net(x))
    watch.close()
    assert dict(vars(_recursive)) == asked
    with spikewatch.open_store(tmp_path) as store:
        rows = store.sql("SELECT step, n_obs FROM spikes ORDER BY step").rows()
        assert store.sql("FROM events WHERE kind = 'fault'").is_empty()
    assert rows[:3] == [(step, 4) for step in range(3)]
