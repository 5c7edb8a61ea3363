"""One small spiking network, digits, and what a run stored; each trainer trains the same."""

import pytest
import snntorch
import torch
from sklearn.datasets import load_digits
from torch import nn

import spikewatch
from spikewatch.alerts.rule import Rule


class Snn(nn.Module):
    """64 pixels, 16 hidden neurons, 10 classes; 3 time steps."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(64, 16), snntorch.Leaky(beta=0.9)
        self.fc2, self.lif2 = nn.Linear(16, 10), snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem1, mem2, spikes = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for _ in range(3):
            s, mem1 = self.lif1(self.fc1(x), mem1)
            s, mem2 = self.lif2(self.fc2(s), mem2)
            spikes.append(s)
        return 3 * torch.stack(spikes).mean(0)


def digits(n=192):
    """The first digits: images of 64 pixels from 0 to 1, and their classes."""
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x[:n] / 16, dtype=torch.float32), torch.tensor(y[:n])


def loader(n=192, batch_size=16):
    data = torch.utils.data.TensorDataset(*digits(n))
    return torch.utils.data.DataLoader(data, batch_size=batch_size)


FIRES = Rule(name="fires", expr="mfr >= 0", severity="info", actions=("stop",))
RAISES = Rule(name="fires", expr="mfr >= 0", severity="critical", actions=("raise",))


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    """Runs go to a folder of the test; a fault of ours fails it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPIKEWATCH_ON_ERROR", "raise")
    torch.manual_seed(0)


@pytest.fixture(name="asked")
def _asked(tmp_path):
    """Rows of an SQL query over the runs of this test."""

    def asked(query):
        with spikewatch.open_store(tmp_path / "spikewatch-runs") as store:
            return store.sql(query).rows()

    return asked


@pytest.fixture(name="states")
def _states(tmp_path):
    """Names and states of the runs of this test, oldest first."""

    def states():
        with spikewatch.open_store(tmp_path / "spikewatch-runs") as store:
            runs = store.runs().sort("run")
            return list(zip(runs["run"], runs["state"], strict=True))

    return states


class Until:
    """Batches that come until `condition` holds: rules are judged about once a second."""

    def __init__(self, batches, condition=lambda: False, most=4000):
        self.batches, self.condition, self.most = list(batches), condition, most

    def __iter__(self):
        for i in range(self.most):
            if self.condition():
                return
            yield self.batches[i % len(self.batches)]
