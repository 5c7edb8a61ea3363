"""The models that can be trained and watched: `spikewatch demo --model NAME`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from spikewatch.stories import MODEL_STORIES

from .digits import DigitsNet, load_digits
from .equilibrium import EquilibriumNet, SettlingTraining
from .goose import Distillation, Goose, accuracy as goose_accuracy, train_teacher
from .lsq import LSQLinear
from .precision import Make
from .progressive import ProgressiveTernaryLinear
from .spike_gpt import SpikeGPT
from .spikformer import Spikformer
from .sttn import STTNLinear
from .tequila import TequilaLinear
from .ternary_digits import KeepingEntropy, TernaryDigitsNet, optimizer_of
from .ternary_linear import ChannelTernaryLinear, TernaryLinear
from .text import letter_accuracy, letter_loss, load_text
from .training import LEARNING_RATE, Training
from .ttq import TTQLinear


@dataclass(frozen=True)
class Model:
    """One entry of the registry.

    Attributes:
        build: Makes the network, from the global random state.
        train: Makes the training of it, given the training set. It may take a while.
        data: Gives the training and the test set for `seed=`.
        n_epochs: Enough to learn well.
        description: What it is, in a line.
    """

    build: Callable[[], nn.Module]
    train: Callable[[Any, Any], Training]
    data: Callable[..., tuple[Any, Any]] = load_digits
    n_epochs: int = 8
    description: str = ""


def _adam(net: nn.Module, train: object) -> Training:  # noqa: ARG001
    return Training(net, torch.optim.Adam(net.parameters(), LEARNING_RATE))


def _fast(net: nn.Module, train: object) -> Training:  # noqa: ARG001
    return Training(net, torch.optim.Adam(net.parameters(), 2 * LEARNING_RATE))


def _at_equilibrium(net: nn.Module, train: object) -> Training:  # noqa: ARG001
    return SettlingTraining(net, torch.optim.Adam(net.parameters(), LEARNING_RATE))


def _language(net: nn.Module, train: object) -> Training:  # noqa: ARG001
    optimizer = torch.optim.Adam(net.parameters(), 2 * LEARNING_RATE)
    return Training(net, optimizer, letter_loss, letter_accuracy)


def _distilled(net: nn.Module, train: Any) -> Training:
    optimizer = torch.optim.Adam(net.parameters(), 2 * LEARNING_RATE)
    return Distillation(net, optimizer, score=goose_accuracy, teacher=train_teacher(train))


def _with_scales(net: nn.Module, train: object) -> Training:  # noqa: ARG001
    return Training(net, optimizer_of(net))


def _keeping_entropy(net: nn.Module, train: object) -> Training:  # noqa: ARG001
    return KeepingEntropy(net, optimizer_of(net))


_SPIKING = {
    "digits": Model(DigitsNet, _adam, n_epochs=12),
    "spike-gpt": Model(SpikeGPT, _language, load_text),
    "spikformer": Model(Spikformer, _fast),
    "equilibrium": Model(EquilibriumNet, _at_equilibrium, n_epochs=12),
    "goose": Model(Goose, _distilled),
}
_TERNARY: dict[str, Make] = {
    "twn": TernaryLinear,
    "ttq": TTQLinear,
    "tervit": ChannelTernaryLinear,
    "lsq": LSQLinear,
    "sttn": STTNLinear,
    "tequila": TequilaLinear,
    "progressive": ProgressiveTernaryLinear,
}


def _ternary(name: str, make: Make) -> Model:
    train = _keeping_entropy if name == "twn" else _with_scales
    return Model(lambda: TernaryDigitsNet(make), train, n_epochs=6)


MODELS: dict[str, Model] = {
    name: replace(model, description=MODEL_STORIES[name])
    for name, model in (_SPIKING | {n: _ternary(n, make) for n, make in _TERNARY.items()}).items()
}
