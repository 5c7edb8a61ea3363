"""Training a model of the zoo, step by step, in a way that can be changed before it begins."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .digits import DigitsNet, accuracy


BATCH = 64
LEARNING_RATE = 2e-3


class DataSet(Protocol):
    """Samples, in shuffled batches of inputs and targets."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def batches(self, size: int, *, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of whole batches."""
        ...


@dataclass
class Training:
    """What is trained, and how.

    Attributes:
        net: The network.
        optimizer: Moves its parameters.
        loss: Of what the network returns, and the targets.
        score: Accuracy of the network on a data set.
    """

    net: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    score: Callable[[nn.Module, Any], float] = accuracy

    @classmethod
    def healthy(cls) -> "Training":
        """A training that learns well; its weights are drawn from the global random state."""
        net = DigitsNet()
        return cls(net, torch.optim.Adam(net.parameters(), LEARNING_RATE))

    def losses(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The `loss` of a batch, and figures to go with it; each a scalar."""
        return {"loss": self.loss(self.net(inputs), targets)}

    def step(self, inputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Train on one batch; returns its loss and the figures that go with it."""
        losses = self.losses(inputs, targets)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        self.optimizer.step()
        return {name: value.item() for name, value in losses.items()}

    def scores(self, test: DataSet) -> dict[str, float]:
        """What is told after each epoch: the `accuracy` on the test set."""
        return {"accuracy": self.score(self.net, test)}

    def advance(self, progress: float) -> None:
        """Tell every part that follows a schedule how much of the training has passed, 0 to 1."""
        for module in self.net.modules():
            advance = getattr(module, "advance", None)
            if advance is not None:
                advance(progress)

    def fit(
        self, train: DataSet, test: DataSet, *, seed: int, n_steps: int | None = None
    ) -> Iterator[dict[str, float]]:
        """Train for `n_steps`, or without end.

        Args:
            train: Learnt from, shuffled anew each epoch.
            test: Scored after each epoch.
            seed: Of the shuffling.
            n_steps: What schedules are spread over. Without, they stay at their end.

        Yields:
            After each step its `loss`; after the last one of an epoch the test `accuracy` too.
        """
        shuffle = torch.Generator().manual_seed(seed)
        epoch = len(train) // BATCH
        batches = (train.batches(BATCH, generator=shuffle) for _ in itertools.count())
        for n, batch in enumerate(itertools.chain.from_iterable(batches), start=1):
            self.advance(1.0 if n_steps is None else n / n_steps)
            result = self.step(*batch)
            if n % epoch == 0:
                result |= self.scores(test)
            yield result
            if n == n_steps:
                return
