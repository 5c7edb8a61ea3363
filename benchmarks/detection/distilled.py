"""A healthy distillation: a student that learns from labels and from a teacher's outputs.

The teacher is a plain network that has learned the same digits; the student is any of the zoo's.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from spikewatch.zoo.digits import N_CLASSES, N_PIXELS, Digits
from spikewatch.zoo.distillation import distillation_loss
from spikewatch.zoo.training import BATCH, LEARNING_RATE, DataSet, Training


_N_TEACHER_STEPS = 200
_N_TEACHER_HIDDEN = 128


@dataclass
class Distilled(Training):
    """Labels and teacher, half and half.

    Attributes:
        teacher: Not trained any more.
        share: Of the teacher in the loss; the labels have the rest.
        distance: Of the student's scores from the teacher's: KL(p_T ‖ p_S)·τ², in nats.
    """

    teacher: nn.Module = field(kw_only=True)
    share: float = 0.5
    distance: Callable[[Tensor, Tensor], Tensor] = distillation_loss

    def losses(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The `loss`, and its two parts."""
        scores = self.net(inputs)
        with torch.no_grad():
            wanted = self.teacher(inputs)
        ce, kd = self.loss(scores, targets), self.distance(scores, wanted)
        return {"loss": (1 - self.share) * ce + self.share * kd, "ce": ce, "kd": kd}

    def scores(self, test: DataSet) -> dict[str, float]:
        """Accuracy of the student, and how far it is behind the teacher: fractions of the test."""
        its, mine = self.score(self.teacher, test), self.score(self.net, test)
        return {"accuracy": mine, "accuracy_gap": its - mine}


def distilled(net: nn.Module, train: Digits) -> Distilled:
    """A training of `net`, with a teacher that has learned."""
    return Distilled(net, adam(net), teacher=_teacher(train))


def adam(net: nn.Module) -> torch.optim.Adam:
    """For a student."""
    return torch.optim.Adam(net.parameters(), LEARNING_RATE)


def _teacher(train: Digits) -> nn.Module:
    net = nn.Sequential(
        nn.Linear(N_PIXELS, _N_TEACHER_HIDDEN),
        nn.BatchNorm1d(_N_TEACHER_HIDDEN),
        nn.ReLU(),
        nn.Linear(_N_TEACHER_HIDDEN, N_CLASSES),
    )
    optimizer, shuffle = adam(net), torch.Generator()
    batches = (train.batches(BATCH, generator=shuffle) for _ in itertools.count())
    endless = itertools.chain.from_iterable(batches)
    for images, labels in itertools.islice(endless, _N_TEACHER_STEPS):
        loss = cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval().requires_grad_(False)
