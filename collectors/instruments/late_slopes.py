"""σ′ from the gradients on both sides of the surrogate, where its saved tensors must not be read.

Inside a checkpoint, or where saved tensors are offloaded, reading one would run the block again or
copy it back. The backward pass does that anyway, and shows ∂L/∂u and ∂L/∂s at the surrogate's node:
σ′ = (∂L/∂u) / (∂L/∂s) to the last digit or two, wherever ∂L/∂s is not 0. Where it is, nothing is
known, and nothing counted; so it is not said there which neurons carry gradient.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spikewatch.metrics.gradients import SG_ACTIVE
from spikewatch.observing import Counters, OnHost

from ..calls import Subject
from ..sums import in_full_precision
from ..surrogate import turns_negative


_NAMES = ("n_sg", "sum_sg", "sum_sq_sg", "n_sg_active", "n_sg_negative")
_N_BAD = "n_sg_nonfinite"
_WHERE = (
    "its saved tensors are kept elsewhere (a checkpoint, offloading), so σ′ is read from the "
    "backward pass, in the slots that gradient reaches"
)


class LateSlopes:
    """Counts σ′ while the backward pass runs."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._rows: list[Tensor] = []  # of `_NAMES`

    def await_backward(self, nodes: list[Any]) -> None:
        """Have σ′ counted when the backward pass has gone through the nodes of one spike."""
        self._subject.tell(_WHERE)
        slopes: list[Tensor] = []
        for node in nodes:
            body = partial(self._read, slopes, len(nodes))
            node.register_hook(self._subject.in_backward(body))

    def _read(
        self,
        slopes: list[Tensor],
        n_nodes: int,
        inputs: tuple[Tensor | None, ...],
        outputs: tuple[Tensor | None, ...],
    ) -> None:
        du, ds = inputs[0], outputs[0]
        if du is None or ds is None or du.shape != ds.shape:
            return  # the node is not elementwise
        # A quotient of numbers near the smallest one of their type has few digits.
        known = ds.detach().abs() > 16 * torch.finfo(ds.dtype).tiny
        known &= ds.isfinite()
        slope = in_full_precision(du.detach()) / in_full_precision(ds.detach())
        slopes.append(slope.where(known, 0))
        if len(slopes) == n_nodes:
            self._add(sum(slopes[1:], start=slopes[0]), known.sum())
            slopes.clear()

    def _add(self, slope: Tensor, n_known: Tensor) -> None:
        size, flat = slope.abs(), slope.flatten()
        sums = (size.sum(), torch.dot(flat, flat), (size > SG_ACTIVE).sum(), turns_negative(slope))
        self._rows.append(torch.stack([x.to(torch.float64) for x in (n_known, *sums)]))

    def flush(self) -> Counters | None:
        """Counters of σ′ in the table `gradients`; None without any."""
        if not self._rows:
            return None
        rows, self._rows = self._rows, []
        names = (*_NAMES, _N_BAD)
        return {names: OnHost(torch.cat(rows), partial(_fold, len(rows)))}


def _fold(n_rows: int, numbers: list[float]) -> Mapping[str, float | int]:
    width, sums, n_bad = len(_NAMES), [0.0] * len(_NAMES), 0
    for i in range(n_rows):
        row = numbers[i * width : (i + 1) * width]
        if all(map(math.isfinite, row)):
            sums = [a + b for a, b in zip(sums, row, strict=True)]
        else:
            n_bad += 1
    return dict(zip((*_NAMES, _N_BAD), (*sums, n_bad), strict=True))
