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

from torch import Tensor

from spikewatch.observing import Counters, Counts, Histogram, OnHost

from ..arrays import (
    Array,
    Readings,
    as_tensor,
    count,
    count_bins,
    countdown,
    highest,
    sample,
    stack,
    where,
)
from ..calls import Call, Subject
from ..strides import fair_stride


_MOST_PAIRS = 4096
_MOST_BINS = 64
_NAMES = (
    "n_ttfs_pairs",
    "n_ttfs_fired",
    "sum_ttfs_steps",
    "sum_ttfs_restricted_steps",
    "sum_ttfs_length_steps",
)
_BATCH_CHANGES = (
    "the batch becomes smaller or larger within a sample, as where sequences of several lengths "
    "are packed. Which row is whose is not known then: there is no time to first spike, nor a "
    "number of samples. With sequences of one length, padded, both are known"
)


class FirstSpikes:
    """Counts, for pairs of sample and neuron, the time steps before the first event."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._times_are_given = subject.library.spike_times
        self._in_sample = False  # its beginning was seen
        self._lead: Array | None = None  # silent steps before the first event
        self._waiting: Array | None = None  # no event yet
        self._n_steps = self._size = 0  # of the sample; neurons of the batch in its calls
        self._readings = Readings()  # Σ lead, censored pairs
        self._lengths: list[tuple[int, int]] = []  # pairs, time steps
        self._n_obs = 0  # of a neuron, in all calls
        self._edges: tuple[float, ...] = ()
        self._counts: Array | None = None

    def add(self, call: Call) -> None:
        """Read one time step, or a whole sequence."""
        if call.again or call.values.numel() == 0:
            return
        self._n_obs += call.values.numel() // math.prod(call.neuron_shape)
        if call.time is None:
            return
        if self._times_are_given:
            self._read_times(call.spikes)
            return
        if call.starts_sample:
            self._close()
            self._in_sample = True
        if self._in_sample and call.axes.time is not None:
            self._read_sequence(call, call.axes.time)
        elif self._in_sample:
            self._read_step(call.values)

    def _read_step(self, values: Tensor) -> None:
        size = values.numel()
        silent = sample(values, fair_stride(size, _MOST_PAIRS)) == 0
        if self._lead is None or self._waiting is None:
            self._lead, self._waiting, self._size = silent * 1.0, silent, size
        elif size != self._size:
            self._give_up()
            return
        else:
            self._waiting &= silent
            self._lead += self._waiting
        self._n_steps += 1

    def _read_sequence(self, call: Call, axis: int) -> None:
        in_time = call.values.movedim(axis, 0)
        n_steps = len(in_time)
        size = in_time.numel() // n_steps
        stride = fair_stride(size, _MOST_PAIRS)
        events = stack([sample(x, stride) for x in in_time]) != 0
        # The earliest event has the most steps left: their maximum tells it.
        most_left = highest(events * countdown(n_steps, like=events))
        lead, silent = n_steps - most_left, most_left == 0
        if self._lead is None or self._waiting is None:
            self._lead, self._waiting, self._size = lead, silent, size
        elif size != self._size:
            self._give_up()
            return
        else:  # a further part of the sample
            self._lead = self._lead + self._waiting * lead
            self._waiting &= silent
        self._n_steps += n_steps

    def _read_times(self, times: Tensor) -> None:
        """Read what is a time already, ∞ for a neuron that never fired. Samples have no end."""
        pairs = sample(times, fair_stride(times.numel(), _MOST_PAIRS))
        waiting = abs(pairs) == math.inf
        self._take_in(where(~waiting, pairs, 0.0), waiting, 0)

    def _close(self) -> None:
        """The sample is over: what did not fire yet is censored."""
        if self._lead is not None and self._waiting is not None:
            self._take_in(self._lead, self._waiting, self._n_steps)
        self._forget()

    def _give_up(self) -> None:
        self._subject.tell(_BATCH_CHANGES)
        self._forget()

    def _forget(self) -> None:
        self._lead = self._waiting = None
        self._n_steps, self._in_sample = 0, False

    def _take_in(self, lead: Array, waiting: Array, n_steps: int) -> None:
        self._readings.add(lead.sum(), count(waiting))
        self._lengths.append((len(lead), n_steps))
        if not self._edges:
            n_bins = min(n_steps or _MOST_BINS, _MOST_BINS)
            width = -(-(n_steps or _MOST_BINS) // n_bins)
            self._edges = tuple(width * k - 0.5 for k in range(n_bins + 1))
        width, n_bins = self._edges[1] - self._edges[0], len(self._edges) - 1
        counts = count_bins(lead, self._edges[0], width, n_bins, ~waiting)
        self._counts = counts if self._counts is None else self._counts + counts

    def flush(self) -> Counts | None:
        """Counters of the table `timing`, and the histogram of the times."""
        if self._subject.is_open:
            self._forget()  # how long it is would be wrong, and who fires later would be censored
        else:
            self._close()
        n_obs, self._n_obs = self._n_obs, 0
        if self._counts is None:
            return None
        readings = OnHost(self._readings.take(), partial(_fold, self._lengths))
        counts = as_tensor(self._counts).long()
        histogram = Histogram("ttfs", self._edges, counts[1:-1], 0, counts[-1])
        self._lengths, self._counts = [], None
        counters: Counters = {_NAMES: readings, "n_timed_obs": n_obs}
        return Counts({"timing": counters}, [histogram])


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
