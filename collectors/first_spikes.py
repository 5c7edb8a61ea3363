"""Time to first spike: after how many time steps of a sample a neuron fires for the first time.

A neuron that does not fire within the sample is *censored*: all that is known is that it waited
longer than the sample was long. Taking the index of a maximum instead would call silence the
fastest of answers.

It is read for evenly spread pairs of sample and neuron, at most 4096 a call, in the observed steps
that have the dear readings: of a share p that is a sample with a standard error of √(p(1−p)/4096),
at most 0.008; of a mean, σ/64.
"""

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from spikewatch.observing import Counters, Counts, Histogram, OnHost

from .calls import Call, Subject
from .strides import fair_stride
from .sums import count_bins


_MOST_PAIRS = 4096
_MOST_BINS = 64
_NAMES = (
    "n_ttfs_pairs",
    "n_ttfs_fired",
    "sum_ttfs_steps",
    "sum_ttfs_restricted_steps",
    "sum_ttfs_length_steps",
)


class FirstSpikes:
    """Counts, for pairs of sample and neuron, the time steps before the first event."""

    def __init__(self, subject: Subject) -> None:
        self._times_are_given = subject.library.spike_times
        self._lead: Tensor | None = None  # silent steps before the first event; of a call per step
        self._waiting: Tensor | None = None  # 1: no event yet
        self._n_steps = 0
        self._readings: list[Tensor] = []  # Σ lead, censored pairs
        self._lengths: list[tuple[int, int]] = []  # pairs, time steps
        self._edges: tuple[float, ...] = ()
        self._counts: Tensor | None = None

    def add(self, call: Call) -> None:
        """Read one time step, or a whole sequence."""
        if call.again or call.time is None:
            return
        if self._times_are_given:
            self._read_times(call.spikes.detach())
            return
        if call.axes.time is not None:
            self._read_sequence(call, call.axes.time)
            return
        if call.starts_sample:
            self._close()
            pairs = _spread(call.values.flatten())
            self._lead = torch.zeros_like(pairs, dtype=torch.float32)
            self._waiting = torch.ones_like(self._lead)
            self._n_steps = 0
        self._read_step(call.values)

    def _read_step(self, values: Tensor) -> None:
        if self._lead is None or self._waiting is None:
            return  # the sample began before this step was observed
        pairs = _spread(values.flatten())
        if pairs.shape != self._lead.shape:
            self._lead = self._waiting = None
            return
        self._waiting.mul_(torch.eq(pairs, 0, out=torch.empty_like(self._lead)))
        self._lead.add_(self._waiting)
        self._n_steps += 1

    def _read_sequence(self, call: Call, axis: int) -> None:
        pairs = _spread(call.values.movedim(axis, 0).flatten(1))
        n_steps = len(pairs)
        events = torch.ne(pairs, 0, out=torch.empty(pairs.shape, device=pairs.device))
        # The earliest event has the most steps left: their maximum tells it.
        left = torch.arange(n_steps, 0, -1, dtype=torch.float32, device=pairs.device)
        most_left = events.mul_(left.unsqueeze(1)).amax(0)
        waiting = torch.eq(most_left, 0, out=torch.empty_like(most_left))
        self._take_in(n_steps - most_left, waiting, n_steps)

    def _read_times(self, times: Tensor) -> None:
        """Read what is a time already, ∞ for a neuron that never fired. Samples have no end."""
        pairs = _spread(times.flatten()).float()
        waiting = pairs.isinf().float()
        self._take_in(torch.where(waiting > 0, 0.0, pairs), waiting, 0)

    def _close(self) -> None:
        """The sample is over: what did not fire yet is censored."""
        if self._lead is not None and self._waiting is not None and self._n_steps > 0:
            self._take_in(self._lead, self._waiting, self._n_steps)
        self._lead = self._waiting = None

    def _take_in(self, lead: Tensor, waiting: Tensor, n_steps: int) -> None:
        self._readings += [lead.sum(), waiting.sum()]
        self._lengths.append((lead.numel(), n_steps))
        if not self._edges:
            n_bins = min(n_steps or _MOST_BINS, _MOST_BINS)
            width = -(-(n_steps or _MOST_BINS) // n_bins)
            self._edges = tuple(width * k - 0.5 for k in range(n_bins + 1))
        width, n_bins = self._edges[1] - self._edges[0], len(self._edges) - 1
        counts = count_bins(lead, self._edges[0], width, n_bins, 1 - waiting)
        self._counts = counts if self._counts is None else self._counts + counts

    def flush(self) -> Counts | None:
        """Counters of the table `timing`, and the histogram of the times."""
        self._close()
        if not self._readings or self._counts is None:
            return None
        readings = OnHost(torch.stack(self._readings), partial(_fold, self._lengths))
        counts = self._counts.long()
        histogram = Histogram("ttfs", self._edges, counts[1:-1], 0, counts[-1])
        self._readings, self._lengths = [], []
        self._counts = None
        counters: Counters = {_NAMES: readings}
        return Counts({"timing": counters}, [histogram])


def _spread(pairs: Tensor) -> Tensor:
    """At most 4096 entries of the last dimension, evenly spread."""
    stride = fair_stride(pairs.shape[-1], _MOST_PAIRS)
    return pairs[..., ::stride] if stride > 1 else pairs


def _fold(lengths: list[tuple[int, int]], numbers: list[float]) -> Mapping[str, float | int]:
    n_pairs = n_fired = 0
    over_fired = restricted = total_length = 0.0
    for i, (n, n_steps) in enumerate(lengths):
        lead, censored = numbers[2 * i : 2 * i + 2]
        if not math.isfinite(lead):
            continue
        n_pairs += n
        n_fired += n - round(censored)
        over_fired += lead - n_steps * censored
        restricted += lead
        total_length += n * n_steps
    if not total_length:  # times without an end of the sample
        return dict(zip(_NAMES, (n_pairs, n_fired, over_fired), strict=False))
    row = (n_pairs, n_fired, over_fired, restricted, total_length)
    return dict(zip(_NAMES, row, strict=True))
