"""Per-neuron event counts of one spiking layer, and who is dead.

Streaming and bounded: a few vectors of one entry per neuron, whatever the number of steps. A neuron
is dead when it had no event in the shortest run of latest observed steps that holds enough
observations; that is the same as a count of observations since its last event, which one vector
keeps. Nothing is copied to the host here.

Flags are kept as floats: comparing into a bool tensor takes eight times as long as comparing into
a float one (torch 2.13, AVX-512), and sums of bools are slower still.
"""

import torch
from torch import Tensor

from spikewatch.metrics.spikes import DEAD_EVIDENCE_OBS, SATURATED_RATE_FRAC
from spikewatch.observing import Counters, Counts

from .calls import Call, Subject
from .sums import Tally, in_full_precision


def pack_bits(flags: Tensor) -> Tensor:
    """Pack booleans into bytes, first flag in the highest bit, the rest of the last byte 0."""
    padded = torch.nn.functional.pad(flags.flatten().to(torch.uint8), (0, -flags.numel() % 8))
    weights = 2 ** torch.arange(7, -1, -1, device=flags.device, dtype=torch.uint8)
    return (padded.view(-1, 8) * weights).sum(1, dtype=torch.uint8)


class SpikeCounts:
    """Counts events between two flushes, and streaks of silence across them."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._n_obs = 0
        self._events: Tensor | None = None
        self._tally = Tally(2)
        self._streaks: _Streaks | None = None

    def add(self, call: Call) -> None:
        """Count the events of one call."""
        if call.again:
            return
        spikes = in_full_precision(call.values)
        flags = torch.ne(spikes, 0, out=torch.empty_like(spikes))
        dims = call.axes.dims
        events = flags.sum(dims) if dims else flags.clone()
        if self._events is None:
            self._events = events
        else:
            self._events += events
        n_positive = torch.gt(spikes, 0, out=flags).sum()
        self._tally.add(spikes.numel(), n_positive, torch.abs(spikes, out=flags).sum())
        self._n_obs += spikes.numel() // max(1, events.numel())

    def flush(self) -> Counts | None:
        """Counters of the table `spikes`."""
        if self._events is None or self._n_obs == 0:
            return None
        events, n_obs = self._events, self._n_obs
        self._events, self._n_obs = None, 0
        _, sums, n_nonfinite = self._tally.take()
        counters: Counters = {
            "n_obs": n_obs,
            "n_neurons": events.numel(),
            "n_spikes": events.sum(dtype=torch.float64),
            "n_positive": sums[0],
            "sum_abs_spike": sums[1],
            "n_nonfinite_spikes": n_nonfinite,
        }
        if self._streaks is None:
            self._streaks = _Streaks(events)
        self._streaks.add(events, n_obs)
        self._subject.dead = self._streaks.dead
        return Counts({"spikes": counters | self._streaks.verdicts()})


class _Streaks:
    """For how many observations each neuron has been silent, or saturated, until now."""

    def __init__(self, events: Tensor) -> None:
        self._silent = torch.zeros_like(events)
        self._saturated = torch.zeros_like(events)
        self._ever = torch.zeros_like(events)  # 1: had an event since the start
        self._total = 0
        self._window = 0
        self.dead: Tensor | None = None

    def add(self, events: Tensor, n_obs: int) -> None:
        """Take in an observed step."""
        fired = torch.ne(events, 0, out=torch.empty_like(events))
        self._ever = torch.maximum(self._ever, fired)
        self._silent.add_(n_obs).mul_(1 - fired)
        torch.ge(events, SATURATED_RATE_FRAC * n_obs, out=fired)
        self._saturated.add_(n_obs).mul_(fired)
        self._total += n_obs
        self._window += n_obs
        known = self._total >= DEAD_EVIDENCE_OBS
        self.dead = self._silent >= DEAD_EVIDENCE_OBS if known else None

    def verdicts(self) -> Counters:
        """Counters that need evidence; a bitmap where a window of it is full."""
        verdicts: Counters = {"evidence_n_obs": min(self._total, DEAD_EVIDENCE_OBS)}
        if self.dead is None:
            return verdicts
        verdicts["n_dead"] = self.dead.sum()
        verdicts["n_saturated"] = (self._saturated >= DEAD_EVIDENCE_OBS).sum()
        verdicts["n_never_fired"] = self._ever.numel() - self._ever.sum()
        if self.dead.dim() > 2:  # [channel, height, width]: a channel is dead if all of it is
            dead_channels = self.dead.flatten(1).all(1)
            verdicts["n_channels"] = dead_channels.numel()
            verdicts["n_dead_channels"] = dead_channels.sum()
        if self._window >= DEAD_EVIDENCE_OBS:
            verdicts["silent"] = pack_bits(self._silent >= self._window)
            verdicts["silent_n_obs"] = self._window
            self._window = 0
        return verdicts
