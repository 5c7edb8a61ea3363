"""Modules of the user's whose own `__getattr__` or property raises what it likes."""

import pytest
import snntorch as snn
import torch
from norse import torch as norse
from sinabs import layers as sinabs
from spikingjelly.activation_based import functional, neuron
from torch import nn

from .little_nets import OwnNeuron, TernaryLinear


class Strict:
    """As where attributes are looked up in settings, once the module is built."""

    error: type[Exception]
    is_built = False

    def __getattr__(self, name):
        try:
            return nn.Module.__getattr__(self, name)
        except AttributeError:
            if self.is_built:
                raise self.error(name) from None
            raise

    def build(self):
        self.is_built = True
        return self


class StrictLinear(Strict, TernaryLinear):
    @property
    def qweight(self):
        raise RuntimeError("not quantized yet")


class StrictPlain(Strict, nn.Linear):
    pass


class StrictNeuron(Strict, OwnNeuron):
    def forward(self, x):
        self.mem = None
        return super().forward(x)


class Config(Strict, nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.act = StrictLinear(8, 6).build(), StrictNeuron().build()
        self.fc2 = StrictPlain(6, 2).build()

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


def n_rows(stored, table):
    return stored(f"SELECT layer, count(*) FROM {table} GROUP BY layer").rows()


@pytest.mark.parametrize("error", [KeyError, RuntimeError, TypeError])
def test_a_module_that_raises_where_an_attribute_is_missing_is_watched(
    watched, stored, monkeypatch, error
):
    monkeypatch.setattr(Strict, "error", error, raising=False)
    net = Config().build()
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        net(torch.rand(4, 8)).sum().backward()
        optimizer.step()
    watch.close()
    assert n_rows(stored, "spikes") == [("act", 3)]
    assert n_rows(stored, "weights") == [("fc1", 3)]
    assert stored("FROM events WHERE kind = 'fault'").is_empty()


class Sequence(nn.Module):
    """Calls a neuron that returns its spikes, with or without a state, for each time step."""

    def __init__(self, act, *, reset, whole):
        super().__init__()
        self.fc, self.act, self.fc2 = nn.Linear(8, 6), act.build(), nn.Linear(6, 2)
        self.reset, self.whole = reset, whole

    def forward(self, x):
        self.reset(self.act)
        if self.whole is not None:
            return self.fc2(self.act(self.fc(x).transpose(0, self.whole)))
        state, out = (), 0.0
        for current in x:
            spikes = self.act(self.fc(current), *state)
            if isinstance(spikes, tuple):
                spikes, *state = spikes
            out = out + self.fc2(spikes)
        return out


def strict(cls):
    return type(f"Strict{cls.__name__}", (Strict, cls), {})


LIBRARIES = {
    "snntorch": lambda: Sequence(
        strict(snn.Leaky)(beta=0.9), reset=lambda m: m.reset_mem(), whole=None
    ),
    "spikingjelly": lambda: Sequence(
        strict(neuron.LIFNode)(), reset=functional.reset_net, whole=None
    ),
    "spikingjelly, sequences": lambda: Sequence(
        strict(neuron.IFNode)(step_mode="m"), reset=functional.reset_net, whole=0
    ),
    "norse": lambda: Sequence(strict(norse.LIFCell)(), reset=lambda _: None, whole=None),
    "sinabs": lambda: Sequence(
        strict(sinabs.LIF)(tau_mem=20.0), reset=lambda m: m.reset_states(), whole=1
    ),
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("error", [KeyError, RuntimeError])
def test_a_neuron_that_is_derived_from_a_library_s_may_raise_too(
    watched, stored, monkeypatch, error, library
):
    monkeypatch.setattr(Strict, "error", error, raising=False)
    net = LIBRARIES[library]()
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        net(5 * torch.rand(4, 16, 8)).sum().backward()
        optimizer.step()
    watch.close()
    assert n_rows(stored, "spikes") == [("act", 3)]
    assert stored("FROM events WHERE kind = 'fault'").is_empty()
