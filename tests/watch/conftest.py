"""Small real trainings."""

import pytest
import snntorch as snn
import torch
from torch import nn

import spikewatch


class Snn(nn.Module):
    """784-free: two Leaky layers in a loop over time, as in snnTorch's tutorials."""

    def __init__(self, n_hidden=12, n_steps=8):
        super().__init__()
        self.n_steps = n_steps
        self.fc1, self.lif1 = nn.Linear(16, n_hidden), snn.Leaky(beta=0.9)
        self.fc2, self.lif2 = nn.Linear(n_hidden, 4), snn.Leaky(beta=0.9)

    def forward(self, x):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for _ in range(self.n_steps):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(spk2)
        return torch.stack(out)


def make_net(seed=0, **kwargs):
    torch.manual_seed(seed)
    return Snn(**kwargs)


def train(net, *, n_steps, watch=None, batch=32, seed=1):
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(n_steps):
        x, y = 2 * torch.rand(batch, 16), torch.randint(0, 4, (batch,))
        loss = nn.functional.cross_entropy(net(x).mean(0), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if watch is not None:
            watch.log(loss=loss)
    return losses


@pytest.fixture(name="net")
def _net():
    return make_net()


@pytest.fixture(name="watched")
def _watched(tmp_path):
    """Attach to a model in every step; the watch is closed when the test ends."""
    watches = []

    def watched(net, **kwargs):
        watches.append(spikewatch.attach(net, dir=tmp_path, quiet=True, **{"every": 1} | kwargs))
        return watches[-1]

    yield watched
    for watch in watches:
        watch.close()


@pytest.fixture(name="stored")
def _stored(tmp_path):
    """What the runs of this test stored, asked in SQL."""

    def stored(query):
        with spikewatch.open_store(tmp_path) as store:
            return store.sql(query)

    return stored


@pytest.fixture(autouse=True)
def _faults_raise(monkeypatch):
    monkeypatch.setenv("SPIKEWATCH_ON_ERROR", "raise")
