"""Trainable parameters that no gradient reaches, step after step.

Read when a step ends: the optimizer has just stepped then, so gradients are still where it found
them, whether the loop clears them before the backward pass or after the step.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from spikewatch.observing import OnHost


Names = tuple[str, str, str]
# Rows in a row after which a parameter is called by its name, as the rules `learns-nothing` count.
_TOLD_AFTER_ROWS = 5
_TOLD = (
    "its parameter {name!r} got no gradient, or one of exact zeros, in {n} observed steps in a row "
    "in which the gradients of parameters were read"
)


def _nobody(message: str) -> None:
    del message


class IdleParameters:
    """Which parameters of a layer got a gradient; one of exact zeros is none."""

    def __init__(self, *names: str, tell: Callable[[str], None] = _nobody) -> None:
        """Name the counters: parameters, those without gradient, and for how many rows in a row.

        What `tell` is given, from the writer thread, names a parameter; counters cannot.
        """
        n_parameters, n_idle, rows = names
        self._tell = tell
        self.names: Names = (n_parameters, n_idle, rows)
        # Rows in a row without a gradient, by parameter. Only the writer thread touches it.
        self._idle: dict[str, int] = {}

    def read(self, learnable: Mapping[str, nn.Parameter]) -> OnHost:
        """The counters of `names`, of one parameter or more."""
        norms = [
            torch.zeros((), device=p.device)
            if not p.is_leaf or p.grad is None
            else torch.linalg.vector_norm(p.grad.float())
            for p in learnable.values()
        ]
        readings = torch.stack([n.to(norms[0].device) for n in norms])
        return OnHost(readings, partial(self._fold, list(learnable)))

    def _fold(self, names: list[str], norms: list[float]) -> Mapping[str, int]:
        idle = self._idle
        for name, norm in zip(names, norms, strict=True):
            idle[name] = 0 if norm != 0 else idle.get(name, 0) + 1
            if idle[name] == _TOLD_AFTER_ROWS:
                self._tell(_TOLD.format(name=name, n=_TOLD_AFTER_ROWS))
        runs = [idle[name] for name in names]
        row = (len(names), sum(run > 0 for run in runs), max(runs))
        return dict(zip(self.names, row, strict=True))
