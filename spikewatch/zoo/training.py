"""A training of `DigitsNet` whose parts can be changed before it begins."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .digits import Digits, DigitsNet, accuracy


BATCH = 64
LEARNING_RATE = 2e-3


@dataclass
class Training:
    """What is trained, and how.

    Attributes:
        net: The network.
        optimizer: Moves its parameters.
        loss: Of scores, shape (batch, 10), and labels, shape (batch,).
    """

    net: DigitsNet
    optimizer: torch.optim.Optimizer
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy

    @classmethod
    def healthy(cls) -> "Training":
        """A training that learns well; its weights are drawn from the global random state."""
        net = DigitsNet()
        return cls(net, torch.optim.Adam(net.parameters(), LEARNING_RATE))

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Train on one batch; returns its loss."""
        loss = self.loss(self.net(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def fit(self, train: Digits, test: Digits, *, seed: int) -> Iterator[dict[str, float]]:
        """Train without end.

        Args:
            train: Learnt from, shuffled anew each epoch.
            test: Classified after each epoch.
            seed: Of the shuffling.

        Yields:
            After each step its `loss`; after the last one of an epoch the test `accuracy` too.
        """
        shuffle = torch.Generator().manual_seed(seed)
        epoch = len(train) // BATCH
        batches = (train.batches(BATCH, generator=shuffle) for _ in itertools.count())
        for n, batch in enumerate(itertools.chain.from_iterable(batches), start=1):
            result = {"loss": self.step(*batch)}
            if n % epoch == 0:
                result["accuracy"] = accuracy(self.net, test)
            yield result
