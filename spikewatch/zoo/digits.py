"""A small but real spiking and ternary network, and the real data that it learns.

The data are the 1797 handwritten digits of 8 × 8 pixels that come with scikit-learn: nothing is
downloaded. Needs the extra `demo`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikewatch.errors import MissingExtraError

from .lif import LIF
from .ternary_linear import TernaryLinear
from .ternary_spike import TernarySpike


N_PIXELS, N_CLASSES = 64, 10
TEST_FRAC = 0.2


@dataclass(frozen=True)
class Digits:
    """Images of shape (n, 64) with values in [0, 1], and their classes 0–9."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int, *, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled whole batches; what is left over waits for the next epoch's shuffle.

        Args:
            size: Images a batch.
            generator: Source of the order, so that the global random state stays untouched.
        """
        order = torch.randperm(len(self), generator=generator)
        for chosen in order[: len(self) // size * size].split(size):
            yield self.images[chosen], self.labels[chosen]


def load_digits(*, seed: int = 0) -> tuple[Digits, Digits]:
    """The training and the test set, split by `seed` with the classes in equal shares.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as load
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingExtraError("demo", "The demo's data set") from error
    images, labels = load(return_X_y=True)
    parts = train_test_split(
        images, labels, test_size=TEST_FRAC, stratify=labels, random_state=seed
    )
    train_x, test_x, train_y, test_y = parts
    return _digits(train_x, train_y), _digits(test_x, test_y)


def _digits(images: object, labels: object) -> Digits:
    return Digits(torch.as_tensor(images, dtype=torch.float32) / 16, torch.as_tensor(labels).long())


class DigitsNet(nn.Module):
    """encoder → LIF → hidden → LIF → ternary weights → ternary spikes → readout, over T steps.

    The pixels are a constant input current; the encoder's LIF makes spikes of it. The readout has
    full precision, as has the encoder: they hold few weights and feel quantization most. Every
    current is normalised over the batch, which keeps all neurons firing.

    Args:
        n_hidden: Neurons of each layer.
        n_steps: Time steps T.
    """

    def __init__(self, *, n_hidden: int = 96, n_steps: int = 8) -> None:
        super().__init__()
        self.n_steps = n_steps
        self.encoder = nn.Linear(N_PIXELS, n_hidden)
        self.encoder_norm = nn.BatchNorm1d(n_hidden)
        self.encoder_lif = LIF()
        self.hidden = nn.Linear(n_hidden, n_hidden)
        self.hidden_norm = nn.BatchNorm1d(n_hidden)
        self.hidden_lif = LIF()
        self.ternary = TernaryLinear(n_hidden, n_hidden)
        self.ternary_norm = nn.BatchNorm1d(n_hidden)
        self.ternary_spike = TernarySpike()
        self.readout = nn.Linear(n_hidden, N_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores.

        Args:
            images: Shape (batch, 64), values in [0, 1].

        Returns:
            Scores averaged over time, shape (batch, 10).
        """
        current, scores = self.encoder_norm(self.encoder(images)), []
        mem1 = mem2 = None
        for _ in range(self.n_steps):
            spikes, mem1 = self.encoder_lif(current, mem1)
            spikes, mem2 = self.hidden_lif(self.hidden_norm(self.hidden(spikes)), mem2)
            spikes = self.ternary_spike(self.ternary_norm(self.ternary(spikes)))
            scores.append(self.readout(spikes))
        return torch.stack(scores).mean(0)


@torch.no_grad()
def accuracy(net: nn.Module, digits: Digits) -> float:
    """Share of images that the network classifies rightly, in evaluation mode."""
    was_training = net.training
    net.eval()
    right = net(digits.images).argmax(1) == digits.labels
    net.train(was_training)
    return right.float().mean().item()
