"""Counting the operations of products, without waiting for the device."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spikewatch.metrics.energy import PJ_PER_AC, PJ_PER_MAC
from spikewatch.observing import Counts, OnHost

from .fan_out import Axes, FanOut
from .sums import in_full_precision


_NAMES = ("n_inputs", "n_nonzero_inputs", "n_outputs", "n_sops", "n_macs", "n_dense_macs")
# Size of the first axis of the inputs, which may be the batch; `add_samples` decides.
_LEADING = "n_leading"
# Inputs that a layer was given: samples times time steps, times places where it works on each.
_CALLED = "n_called"
# How many inputs they would be if one of the axes that they have was time: of each such axis, and
# whether it is one whose places are taken alone.
_ALONG = "n_along"
# Nonzero inputs that are like spikes, and were made within the network.
_MADE = "n_made_spikes"
_ROUNDING = 1e-4
# Whole numbers that are larger on average are pixels, rather than how often a neuron fired.
_MOST_A_STEP = PJ_PER_MAC / PJ_PER_AC

_Row = dict[str, Any]


class Operations:
    """Sums over the products of one weight, or of one module's activations, by phase.

    Args:
        several: Whether there are neurons that may fire several times in a time step.
    """

    def __init__(self, *, several: bool = False) -> None:
        self._several = several
        self._is_made = False
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
        of_steps: bool = False,
        axes: Axes = (),
        has_graph: bool = False,
    ) -> None:
        """Count one product of an input with weights, or with a stack of them, one a part.

        Where it is known to be spikes of time steps, these may have an amplitude each (`of_steps`).
        What has a graph was made within the network; in evaluations it is as it was in training.
        """
        if torch.is_grad_enabled():
            self._is_made = has_graph
        x = in_full_precision(x)
        row, events, magnitude = self._read(x)
        if of_steps and x.dim() > 1:
            of_each = events.flatten(1).sum(1) * magnitude.flatten(1).amax(1)
            row[2] = of_each.sum() / row[0].clamp(min=1)
        if reach.each is not None:  # it differs at the border
            row += [_reached(n, reach.each) for n in (events, magnitude)[: 1 + self._several]]
        n_leading = 0 if stacked else len(x) if x.dim() > 1 else 1
        call = _WithWeight(
            n_leading, n_called, axes, self._is_made,
            x.numel(), n_outputs, reach.mean, reach.each is not None,
        )  # fmt: skip
        self._readings.setdefault(phase, []).extend(row)
        self._calls.setdefault(phase, []).append(call)

    def count_activations(
        self, phase: str, sides: Sequence[Tensor], n_products: int, n_outputs: int
    ) -> None:
        """Count one product of activations: of those of its sides that may be spikes."""
        sizes = [x.numel() for x in sides]
        row = [reading for x in sides for reading in self._read(in_full_precision(x))[0]]
        self._readings.setdefault(phase, []).extend(row)
        self._calls.setdefault(phase, []).append(_OfActivations(sizes, n_products, n_outputs))

    def flush(self, phase: str) -> Counts | None:
        """Counters of `energy`; samples and time steps are added from other layers."""
        readings, calls = self._readings.pop(phase, None), self._calls.pop(phase, [])
        if not readings:
            return None
        whole = torch.stack([r.double() for r in readings])
        fold = partial(_fold, calls, several=self._several)
        return Counts({"energy": {_NAMES: OnHost(whole, fold)}})

    def _read(self, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """What `_Inputs` are made of, where something is not 0, and how large it is."""
        events, magnitude = torch.ne(x, 0, out=torch.empty_like(x)), x.abs()
        row = [events.sum(), magnitude.sum(), magnitude.amax()]
        if self._several:
            row[1] = magnitude.sum(dtype=torch.float64)
            row.append((magnitude - magnitude.round()).abs_().sum())
        return row, events, magnitude


def _reached(numbers: Tensor, each: Tensor) -> Tensor:
    """How often inputs reach an output, that many times each."""
    per_place = numbers.flatten(0, -1 - each.dim()).sum(0)
    return torch.dot(per_place.flatten().double(), each.flatten())


class _Inputs(NamedTuple):
    """What is read of the elements of an input."""

    n_nonzero: float
    magnitude: float  # Σ|x|
    largest: float
    fractions: float  # Σ of their distances from whole numbers; NaN: not read

    @classmethod
    def next(cls, numbers: Iterator[float], *, several: bool) -> "_Inputs":
        read = next(numbers), next(numbers), next(numbers)
        return cls(*read, next(numbers) if several else math.nan)

    @property
    def are_counts(self) -> bool:
        """Whether they are how often neurons fired."""
        are_whole = self.fractions <= _ROUNDING * self.magnitude
        return are_whole and self.magnitude <= _MOST_A_STEP * self.n_nonzero

    @property
    def n_spikes(self) -> float | None:
        """How many spikes they are; None where they are none."""
        if self.are_counts:
            return self.magnitude
        # Spikes are {−a, 0, +a}: their sum of |x| is a times their number.
        off = abs(self.magnitude - self.largest * self.n_nonzero)
        return self.n_nonzero if off <= _ROUNDING * self.magnitude else None


class _WithWeight(NamedTuple):
    """What is known of one call without looking at its numbers."""

    n_leading: int
    n_called: int
    axes: Axes
    is_made: bool
    n_inputs: int
    n_outputs: int
    mean_reach: float  # outputs that an input has a weight to, on average
    has_border: bool  # where inputs reach fewer outputs

    def add_to(self, row: _Row, numbers: Iterator[float], *, several: bool) -> None:
        inputs = _Inputs.next(numbers, several=several)
        n_spikes = inputs.n_spikes
        # Whole numbers, of which a mean as a float falls short by a last digit.
        sops = round((n_spikes or 0) * self.mean_reach)
        if self.has_border:
            reached = [next(numbers) for _ in range(1 + several)]  # by events, by their sizes
            sops = reached[-1 if inputs.are_counts else 0]
        dense = round(self.mean_reach * self.n_inputs)
        row[_LEADING] += self.n_leading
        row[_CALLED] += self.n_called
        if self.axes:
            along = [(self.n_called * n, alone) for n, alone in self.axes]
            before = row.get(_ALONG, [(0, alone) for _, alone in along])
            row[_ALONG] = [(n + m, a) for (n, a), (m, _) in zip(before, along, strict=True)]
        row["n_inputs"] += self.n_inputs
        row["n_nonzero_inputs"] += inputs.n_nonzero
        row["n_outputs"] += self.n_outputs
        row["n_dense_macs"] += dense
        if n_spikes is not None:
            row["n_sops"] += sops
        else:
            row["n_macs"] += dense
        if self.is_made and n_spikes and inputs.n_nonzero < self.n_inputs:
            row[_MADE] = row.get(_MADE, 0.0) + inputs.n_nonzero


class _OfActivations(NamedTuple):
    """The same of a product that spikes of either side may drive."""

    n_inputs: Sequence[int]  # of each side
    n_products: int
    n_outputs: int

    def add_to(self, row: _Row, numbers: Iterator[float], *, several: bool) -> None:
        sides = [(n, _Inputs.next(numbers, several=several)) for n in self.n_inputs]
        spiking = [(s / n, n, x) for n, x in sides if (s := x.n_spikes) is not None]
        # Spikes drive it: those of the side that reaches less with them.
        rate, n_inputs, inputs = min(spiking, key=lambda side: side[0], default=(None, *sides[0]))
        row["n_inputs"] += n_inputs
        row["n_nonzero_inputs"] += inputs.n_nonzero
        row["n_outputs"] += self.n_outputs
        row["n_dense_macs"] += self.n_products
        if rate is not None:
            row["n_sops"] += round(rate * self.n_products)
        else:
            row["n_macs"] += self.n_products


def _fold(
    calls: Sequence[_WithWeight | _OfActivations], numbers: Sequence[float], *, several: bool
) -> _Row:
    row, rest = dict.fromkeys((*_NAMES, _LEADING, _CALLED), 0.0), iter(numbers)
    for call in calls:
        call.add_to(row, rest, several=several)
    return row
