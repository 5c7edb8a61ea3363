"""Counting the operations of products, without waiting for the device."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from spikewatch.observing import Counts, OnHost

from .fan_out import FanOut
from .sums import in_full_precision


_NAMES = ("n_inputs", "n_nonzero_inputs", "n_outputs", "n_sops", "n_macs", "n_dense_macs")
# Size of the first axis of the inputs, which may be the batch; `add_samples` decides.
_LEADING = "n_leading"
# Inputs that a layer was given: samples times time steps, times places where it works on each.
_CALLED = "n_called"
# Spikes are {−a, 0, +a}: their sum of |x| is a times their number, up to rounding.
_ONE_LEVEL = 1e-4

_Row = dict[str, float]


class Operations:
    """Sums over the products of one weight, or of one module's activations, by phase."""

    def __init__(self) -> None:
        self._readings: dict[str, list[Tensor]] = {}
        self._calls: dict[str, list[_WithWeight | _OfActivations]] = {}

    def count(
        self,
        phase: str,
        x: Tensor,
        reach: FanOut,
        n_outputs: int,
        *,
        stacked: bool = False,
        n_called: int = 0,
    ) -> None:
        """Count one product of an input with weights, or with a stack of them, one a part."""
        row, events = _read(x)
        if reach.each is not None:  # it differs at the border
            per_place = events.flatten(0, -1 - reach.each.dim()).sum(0)
            row.append(torch.dot(per_place.flatten().double(), reach.each.flatten()))
        n_leading = 0 if stacked else len(x) if x.dim() > 1 else 1
        call = _WithWeight(
            n_leading, n_called, x.numel(), n_outputs, reach.mean, reach.each is not None
        )
        self._readings.setdefault(phase, []).extend(row)
        self._calls.setdefault(phase, []).append(call)

    def count_activations(
        self, phase: str, sides: Sequence[Tensor], n_products: int, n_outputs: int
    ) -> None:
        """Count one product of activations: of those of its sides that may be spikes."""
        sizes = [x.numel() for x in sides]
        row = [reading for x in sides for reading in _read(x)[0]]
        self._readings.setdefault(phase, []).extend(row)
        self._calls.setdefault(phase, []).append(_OfActivations(sizes, n_products, n_outputs))

    def flush(self, phase: str) -> Counts | None:
        """Counters of `energy`; samples and time steps are added from other layers."""
        readings, calls = self._readings.pop(phase, None), self._calls.pop(phase, [])
        if not readings:
            return None
        whole = torch.stack([r.double() for r in readings])
        return Counts({"energy": {_NAMES: OnHost(whole, partial(_fold, calls))}})


class _WithWeight(NamedTuple):
    """What is known of one call without looking at its numbers."""

    n_leading: int
    n_called: int
    n_inputs: int
    n_outputs: int
    mean_reach: float  # outputs that an input has a weight to, on average
    has_border: bool  # where inputs reach fewer outputs

    def add_to(self, row: _Row, numbers: Iterator[float]) -> None:
        n_nonzero, magnitude, largest = next(numbers), next(numbers), next(numbers)
        # Whole numbers, of which a mean as a float falls short by a last digit.
        sops = next(numbers) if self.has_border else round(n_nonzero * self.mean_reach)
        dense = round(self.mean_reach * self.n_inputs)
        row[_LEADING] += self.n_leading
        row[_CALLED] += self.n_called
        row["n_inputs"] += self.n_inputs
        row["n_nonzero_inputs"] += n_nonzero
        row["n_outputs"] += self.n_outputs
        row["n_dense_macs"] += dense
        if _are_spikes(n_nonzero, magnitude, largest):
            row["n_sops"] += sops
        else:
            row["n_macs"] += dense


class _OfActivations(NamedTuple):
    """The same of a product that spikes of either side may drive."""

    n_inputs: Sequence[int]  # of each side
    n_products: int
    n_outputs: int

    def add_to(self, row: _Row, numbers: Iterator[float]) -> None:
        read = [(n, next(numbers), next(numbers), next(numbers)) for n in self.n_inputs]
        # Spikes drive it: those of the side that reaches less with them.
        driving = min(
            (side for side in read if _are_spikes(*side[1:])),
            key=lambda side: side[1] / side[0],
            default=None,
        )
        n_inputs, n_nonzero = (driving or read[0])[:2]
        row["n_inputs"] += n_inputs
        row["n_nonzero_inputs"] += n_nonzero
        row["n_outputs"] += self.n_outputs
        row["n_dense_macs"] += self.n_products
        if driving is not None:
            row["n_sops"] += round(n_nonzero * self.n_products / n_inputs)
        else:
            row["n_macs"] += self.n_products


def _read(x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Number, sum and largest of what is not 0, and where that is."""
    x = in_full_precision(x)
    events, magnitude = torch.ne(x, 0, out=torch.empty_like(x)), x.abs()
    return [events.sum(), magnitude.sum(), magnitude.amax()], events


def _are_spikes(n_nonzero: float, magnitude: float, largest: float) -> bool:
    return abs(magnitude - largest * n_nonzero) <= _ONE_LEVEL * magnitude


def _fold(
    calls: Sequence[_WithWeight | _OfActivations], numbers: Sequence[float]
) -> Mapping[str, float | int]:
    row, rest = dict.fromkeys((*_NAMES, _LEADING, _CALLED), 0.0), iter(numbers)
    for call in calls:
        call.add_to(row, rest)
    return row
