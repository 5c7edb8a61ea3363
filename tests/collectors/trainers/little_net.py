"""One small spiking network, digits, and rules: what all trainers train."""

from abc import ABC, abstractmethod

import snntorch
import torch
from sklearn.datasets import load_digits
from torch import nn

from spikewatch.alerts.rule import Rule


BATCH, N_BATCHES = 16, 6

STOPS = Rule(name="stops", expr="mfr >= 0", severity="info", actions=("stop",))
RAISES = Rule(name="raises", expr="mfr >= 0", severity="critical", actions=("raise",))


class Snn(nn.Module):
    """64 pixels, 16 hidden neurons, 10 classes; 3 time steps."""

    def __init__(self, *, bias=True):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(64, 16, bias=bias), snntorch.Leaky(beta=0.9)
        self.fc2, self.lif2 = nn.Linear(16, 10, bias=bias), snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem1, mem2, spikes = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for _ in range(3):
            s, mem1 = self.lif1(self.fc1(x), mem1)
            s, mem2 = self.lif2(self.fc2(s), mem2)
            spikes.append(s)
        return 3 * torch.stack(spikes).mean(0)


def make_net():
    torch.manual_seed(0)
    return Snn()


def dataset(n=BATCH * N_BATCHES):
    """The first digits: images of 64 pixels from 0 to 1, and their classes."""
    x, y = load_digits(return_X_y=True)
    pixels, classes = torch.tensor(x[:n] / 16, dtype=torch.float32), torch.tensor(y[:n])
    return torch.utils.data.TensorDataset(pixels, classes)


def loader(n=BATCH * N_BATCHES):
    return torch.utils.data.DataLoader(dataset(n), batch_size=BATCH)


def optimizer_of(net):
    return torch.optim.Adam(net.parameters(), 1e-2)


class Training(ABC):
    """What a test wants of any trainer.

    Args:
        net: An `Snn`.
        options: Of the integration; None trains without it.
        accumulate: Batches for one step.
        validate: Whether there is validation, after every 6 batches.
        during: Called with the loss and number of each batch, from 0, before its backward pass; it
            returns the loss that is to be used.
    """

    layers = ("lif1", "lif2")

    def __init__(self, net, options, *, accumulate=1, validate=False, during=None):
        self.net, self.options = net, options
        self.accumulate, self.validate = accumulate, validate
        self._during = during or (lambda loss, _: loss)
        self.losses = []  # of each training batch

    @property
    def model(self):
        """What the trainer trains."""
        return self.net

    def loss(self, x, y):
        """Loss of a batch; kept, in training."""
        loss = nn.functional.cross_entropy(self.net(x), y)
        if self.net.training:
            loss = self._during(loss, len(self.losses))
            self.losses.append(loss.item())
        return loss

    @abstractmethod
    def fit(self, n_steps):
        """Train for so many steps, or until somebody stops it."""
