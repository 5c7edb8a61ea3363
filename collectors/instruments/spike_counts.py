"""Per-neuron event counts of one spiking layer, and who is dead.

Streaming and bounded: a few vectors of one entry per neuron, whatever the number of steps. A neuron
is dead when it had no event in the shortest run of latest observed steps that holds enough
observations; that is the same as a count of observations since its last event, which one vector
keeps, and in which NaN is no silence. Of a sample's time steps no more than some count. Nothing is
copied to the host here.
"""

import math
from typing import Any

import torch
from torch import Tensor

from spikewatch.metrics.spikes import DEAD_EVIDENCE_OBS, MOST_OBS_A_SAMPLE, SATURATED_RATE_FRAC
from spikewatch.observing import Counters, Counts

from ..arrays import (
    Array,
    as_seen,
    count,
    on_host,
    pack_bits,
    put,
    squared,
    total,
    total_over,
    zeros_like,
)
from ..calls import Call, Subject
from ..sums import Tally, in_full_precision
from .gathered import Gathered, is_small
from .spike_levels import SpikeLevels


# Tensors that are not just 0 and 1 are read in pieces that stay in the processor's cache; smaller
# ones take twice as long, for all that is called for each.
_PIECE = 1 << 19
# Up to here whole numbers add up exactly in float32.
_MOST_EXACT = 1 << 24


class SpikeCounts:
    """Counts events between two flushes, and streaks of silence across them."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._n_obs = 0
        self._events: Array | None = None
        columns = ("n_spikes", "n_positive", "sum_abs_spike")
        self._tally = Tally(*columns, size="n_obs", bad="n_nonfinite_spikes")
        self._streaks: _Streaks | None = None
        self._gathered: Gathered | None = None
        self._n_calls = 0  # in this step
        self._one_a_step = False  # as the latest step had it: then there is nothing to gather
        self._binary = True  # as far as has been seen
        self._length = _SampleLength()
        # How often a neuron fired in a time step has rules of its own.
        self._levels = None if subject.library.several_a_step else SpikeLevels()

    def add(self, call: Call) -> None:
        """Count the events of one call."""
        if call.again:
            return
        self._length.add(call)
        self._n_calls += 1
        spikes, dims = call.values, call.axes.dims
        if self._levels is not None and call.probed and not self._are_binary(spikes):
            self._levels.look(call)
        alone = self._one_a_step and self._n_calls == 1
        if alone or not is_small(spikes):
            self._count(spikes, dims)
            return
        if self._gathered is None or not self._gathered.fits(spikes):
            self._read_gathered()
            self._gathered = Gathered(spikes, dims)
        if self._gathered.add(spikes):
            self._read_gathered()

    def _are_binary(self, spikes: Tensor) -> bool:
        """Whether they are 0 and 1, as those of an earlier step have shown."""
        return self._streaks is not None and self._binary and on_host(spikes)

    def _read_gathered(self) -> None:
        if self._gathered is None or (calls := self._gathered.take()) is None:
            return
        dims = self._gathered.dims
        if not self._count_binary(calls, dims):
            self._count_events(calls, dims, each=True)

    def _count(self, spikes: Tensor, dims: tuple[int, ...]) -> None:
        """Count a tensor: in pieces along its first dimension of time or batch, unless binary."""
        spikes = in_full_precision(spikes)
        if self._count_binary(spikes, dims):
            return
        n_pieces = 1
        if dims and spikes.numel() > _PIECE and on_host(spikes):
            n_pieces = -(-spikes.numel() // _PIECE)
        for piece in spikes.chunk(n_pieces, dims[0]) if n_pieces > 1 else (spikes,):
            self._count_events(piece, dims)

    def _count_events(self, spikes: Tensor, dims: tuple[int, ...], *, each: bool = False) -> None:
        """Count spikes of any kind; `each`: the first dimension holds calls to be told apart."""
        if not on_host(spikes):
            self._count_afar(spikes, dims, each=each)
            return
        flags = torch.ne(spikes, 0, out=torch.empty_like(spikes))
        events = total_over(as_seen(flags), dims)
        n_spikes = n_positive = total(events, wide=_is_many(spikes))
        if spikes.min() >= 0:  # as nearly always: then what is not 0 is above
            sum_abs = spikes.sum().item()
        else:
            n_positive = torch.gt(spikes, 0, out=flags).sum().item()
            sum_abs = torch.abs(spikes, out=flags).sum().item()
        if each and not math.isfinite(sum_abs):
            for call in spikes:
                self._count_events(call, tuple(d - 1 for d in dims[1:]))
            return
        self._tally.add(self._add(events, spikes.numel()), n_spikes, n_positive, sum_abs)

    def _count_afar(self, spikes: Tensor, dims: tuple[int, ...], *, each: bool) -> None:
        """The same without looking at a number."""
        over = tuple(range(1, spikes.dim())) if each else None
        flags = torch.ne(spikes, 0, out=torch.empty_like(spikes))
        events = total_over(flags, dims)
        n_spikes = flags.sum(over) if each else total(events, wide=_is_many(spikes))
        n_positive = torch.gt(spikes, 0, out=flags).sum(over)
        sum_abs = torch.linalg.vector_norm(spikes, 1, over)
        n_obs = self._add(events, spikes.numel())
        if each:
            self._tally.add_each(n_obs // len(spikes), n_spikes, n_positive, sum_abs)
        else:
            self._tally.add(n_obs, n_spikes, n_positive, sum_abs)

    def _count_binary(self, spikes: Tensor, dims: tuple[int, ...]) -> bool:
        """Count spikes of 0 and 1 in half the time; False if these are others.

        Σs = Σs² tells them: s(s − 1) is positive for every other whole number. Real values would
        have to balance to the last digit. Looking at the sums is free where no device is far.
        """
        if not self._binary or not on_host(spikes):
            return False
        numbers = as_seen(spikes)
        events = total_over(numbers, dims)
        n_spikes = total(events, wide=_is_many(spikes))
        if not math.isfinite(n_spikes):
            return False  # which says nothing of those to come
        self._binary = n_spikes == squared(numbers)
        if self._binary:
            self._tally.add(self._add(events, spikes.numel()), n_spikes, n_spikes, n_spikes)
        return self._binary

    def _add(self, events: Array, size: int) -> int:
        """Add up events of each neuron; how many observations of each they are from."""
        if self._events is None:
            self._events = events
        else:
            self._events += events
        n_obs = size // max(1, math.prod(events.shape))
        self._n_obs += n_obs
        return n_obs

    def forget(self) -> None:
        """Drop the events counted since the last flush: no neuron was silent in them, or fired."""
        if self._gathered is not None:
            self._gathered.take()
        self._n_calls = self._n_obs = 0
        self._events = None
        self._tally.take()
        self._length.take()

    def flush(self) -> Counts | None:
        """Counters of the table `spikes`."""
        self._read_gathered()
        self._one_a_step, self._n_calls = self._n_calls == 1, 0
        self._subject.step = None
        if self._events is None or self._n_obs == 0:
            return None
        events, n_obs = self._events, self._n_obs
        self._events, self._n_obs = None, 0
        self._subject.step = (events, n_obs)
        counters: Counters = {
            "n_neurons": math.prod(events.shape),
            self._tally.names: self._tally.take(),
        }
        if self._streaks is None:
            self._streaks = _Streaks(events, self._subject.channel_axis(events.shape))
        self._streaks.add(events, n_obs, length=self._length.take())
        module = self._subject.module()
        if module is not None and self._subject.library.is_graded(module):
            counters["is_graded"] = 1
        if self._levels is not None and self._levels.seen is not None:
            counters["is_multilevel"] = self._levels.seen
        verdicts = self._streaks.verdicts()
        if self._subject.is_gate:
            verdicts.pop("n_saturated", None)  # one that stays open lets pass all the same
        self._subject.dead = self._streaks.dead
        return Counts({"spikes": counters | verdicts})


class _SampleLength:
    """Time steps of a sample, as far as they are known: calls are numbered in some steps only."""

    def __init__(self) -> None:
        self._latest: float | None = None
        self._n_steps = self._n_starts = 0

    def add(self, call: Call) -> None:
        """Take in a call."""
        if call.time is not None:
            self._n_steps += call.n_steps
            self._n_starts += bool(call.starts_sample)

    def take(self) -> float | None:
        """The latest that is known; calls are counted anew."""
        if self._n_starts:
            self._latest = self._n_steps / self._n_starts
        self._n_steps = self._n_starts = 0
        return self._latest


class _Streaks:
    """For how many observations each neuron has been silent, or saturated, until now.

    Args:
        events: Events of each neuron.
        channel_axis: Which axis of the neurons is that of channels; None where they have none.
    """

    def __init__(self, events: Array, channel_axis: int | None) -> None:
        # How much had been observed when each was last seen to do so; 0: never.
        self._fired_at = zeros_like(events)
        self._unsaturated_at = zeros_like(events)
        self._channel_axis = channel_axis
        self._total = 0
        self._window = self._window_obs = 0
        self.dead: Array | None = None
        """Whether each neuron is dead; None without evidence."""

    def add(self, events: Array, n_obs: int, *, length: float | None) -> None:
        """Take in an observed step, whose samples have so many time steps."""
        share = min(1.0, MOST_OBS_A_SAMPLE / length) if length else 1.0
        n_counted = max(1, round(share * n_obs))
        self._total += n_counted
        put(self._fired_at, events != 0, self._total)
        put(self._unsaturated_at, events < SATURATED_RATE_FRAC * n_obs, self._total)
        self._window += n_counted
        self._window_obs += n_obs

    def verdicts(self) -> Counters:
        """Counters that need evidence; a bitmap where a window of it is full."""
        evidence = min(self._total, DEAD_EVIDENCE_OBS)
        verdicts: Counters = {"evidence_n_obs": evidence}
        if evidence < DEAD_EVIDENCE_OBS:
            return verdicts
        since = self._total - DEAD_EVIDENCE_OBS
        self.dead = dead = self._fired_at <= since
        verdicts["n_dead"] = n_dead = count(dead)
        verdicts["n_saturated"] = count(self._unsaturated_at <= since)
        verdicts["n_never_fired"] = count(self._fired_at == 0)
        if self._channel_axis is not None:
            channels = dead.swapaxes(0, self._channel_axis)
            verdicts["n_channels"] = len(channels)
            verdicts["n_dead_channels"] = _n_all_dead(channels, n_dead)
        if self._window >= DEAD_EVIDENCE_OBS:
            verdicts["silent"] = pack_bits(self._fired_at <= self._total - self._window)
            verdicts["silent_n_obs"] = self._window_obs
            self._window = self._window_obs = 0
        return verdicts


def _is_many(spikes: Tensor) -> bool:
    return spikes.numel() > _MOST_EXACT


def _n_all_dead(channels: Array, n_dead: Any) -> Any:
    """How many channels are dead in all of their places."""
    if isinstance(n_dead, int) and n_dead == 0:
        return 0
    return count(channels.reshape(len(channels), -1).all(1))
