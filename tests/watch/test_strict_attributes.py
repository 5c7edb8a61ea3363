"""Modules of the user's whose own `__getattr__` or property raises what it likes."""

import pytest
import torch
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


def n_rows(stored, table):
    return stored(f"SELECT layer, count(*) FROM {table} GROUP BY layer").rows()
