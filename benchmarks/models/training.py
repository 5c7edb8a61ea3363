"""What a training is to the benchmark, and the loop that all of them share."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


Step = Callable[[], None]
N_CLASSES = 10
# Batches that a training goes through, again and again.
_N_BATCHES = 8


@dataclass(frozen=True)
class Built:
    """A training that is ready to run.

    Attributes:
        net: The model.
        step: One optimizer step on the next batch.
        neurons: Its spiking layers, for rivals that have to be told.
    """

    net: nn.Module
    step: Step
    neurons: tuple[nn.Module, ...]


@dataclass(frozen=True)
class Training:
    """A training that can be built twice, alike.

    Attributes:
        name: What `--only` calls it.
        library: Import name of its SNN library.
        about: Its size.
        build: Makes it on a device.
        every_step_goal: Most that watching every step may cost, as a ratio of wall times.
    """

    name: str
    library: str
    about: str
    build: Callable[[torch.device], Built]
    every_step_goal: float | None = None


def digit_batches(
    device: torch.device, *, batch: int, side: int = 8
) -> list[tuple[Tensor, Tensor]]:
    """Batches of scikit-learn's 1797 hand-written digits.

    Returns:
        Pairs of images, shape (batch, 1, side, side), in [0, 1], and classes, shape (batch,).
    """
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    x = torch.as_tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    if side != 8:
        x = nn.functional.interpolate(x, size=(side, side), mode="bilinear")
    y = torch.as_tensor(classes, dtype=torch.long)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    picked = order[: batch * _N_BATCHES].split(batch)
    return [(x[i].to(device), y[i].to(device)) for i in picked]


def trained(
    net: nn.Module,
    logits: Callable[[Tensor], Tensor],
    batches: list[tuple[Tensor, Tensor]],
    *,
    neurons: type | tuple[type, ...],
) -> Built:
    """Give a model its loop: one batch after the other, cross-entropy, Adam.

    Args:
        net: The model, on its device.
        logits: From images, shape (batch, 1, side, side), to logits, shape (batch, 10).
        batches: What it trains on.
        neurons: Classes of its spiking layers.
    """
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    source = itertools.cycle(batches)

    def step() -> None:
        x, y = next(source)
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(logits(x), y).backward()
        optimizer.step()

    spiking = tuple(m for m in net.modules() if isinstance(m, neurons))
    return Built(net, step, spiking)
