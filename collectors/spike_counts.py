"""The counters of one spiking layer in one phase: per-neuron event counts, and who is dead.

Streaming and bounded: four vectors of one entry per neuron, whatever the number of steps. A neuron
is dead when it had no event in the shortest run of latest observed steps that holds enough
observations; that is the same as a count of observations since its last event, which one vector
keeps. Nothing is copied to the host here.
"""

import torch
from torch import Tensor

from spikewatch.metrics.spikes import DEAD_EVIDENCE_OBS, SATURATED_RATE_FRAC
from spikewatch.observing import Counters

from .sums import exact_sum


def pack_bits(flags: Tensor) -> Tensor:
    """Pack booleans into bytes, first flag in the highest bit, the rest of the last byte 0."""
    padded = torch.nn.functional.pad(flags.flatten().to(torch.uint8), (0, -flags.numel() % 8))
    weights = 2 ** torch.arange(7, -1, -1, device=flags.device, dtype=torch.uint8)
    return (padded.view(-1, 8) * weights).sum(1, dtype=torch.uint8)


class SpikeCounts:
    """Accumulates one phase of one layer between two flushes, and streaks across them."""

    def __init__(self) -> None:
        self._shape: tuple[int, ...] | None = None
        self._restart()

    def _restart(self) -> None:
        self._n_obs = 0
        self._events: Tensor | None = None
        self._sums: Tensor | None = None
        self._silent_obs: Tensor | None = None
        self._saturated_obs: Tensor | None = None
        self._total_obs = 0
        self._window_obs = 0

    def add(self, spikes: Tensor, dims: tuple[int, ...]) -> bool:
        """Count one forward call.

        Args:
            spikes: The layer's output, detached, of any dtype.
            dims: Its dimensions of time and batch.

        Returns:
            Whether the neurons are still the same ones; if not, counting began anew.
        """
        shape = tuple(n for d, n in enumerate(spikes.shape) if d not in dims)
        same = self._shape in (None, shape)
        if self._shape != shape:
            self._restart()
            self._shape = shape
        nonzero = spikes.ne(0)
        events = nonzero.sum(dims) if dims else nonzero.to(torch.int64)
        # One non-finite element makes the sum non-finite: cheaper to see than each element.
        sum_abs = exact_sum(spikes.abs())
        finite = sum_abs.isfinite()
        sums = torch.stack(
            [spikes.gt(0).sum().double(), sum_abs.where(finite, 0), finite.logical_not().double()]
        )
        if self._events is None or self._sums is None:
            self._events, self._sums = events, sums
        else:
            self._events += events
            self._sums += sums
        self._n_obs += spikes.numel() // max(1, events.numel())
        return same

    def flush(self) -> Counters | None:
        """Counters of the table `spikes` since the last flush; None without an observation."""
        if self._events is None or self._sums is None or self._n_obs == 0:
            return None
        events, sums, n_obs = self._events.flatten(), self._sums, self._n_obs
        self._events = self._sums = None
        self._n_obs = 0
        counters: Counters = {
            "n_obs": n_obs,
            "n_neurons": events.numel(),
            "n_spikes": events.sum(),
            "n_positive": sums[0],
            "sum_abs_spike": sums[1],
            "n_nonfinite_spikes": sums[2],
        }
        return counters | self._verdicts(events, n_obs)

    def _verdicts(self, events: Tensor, n_obs: int) -> Counters:
        if self._silent_obs is None or self._saturated_obs is None:
            self._silent_obs = torch.zeros_like(events)
            self._saturated_obs = torch.zeros_like(events)
        silent, saturated = events == 0, events >= SATURATED_RATE_FRAC * n_obs
        self._silent_obs = torch.where(silent, self._silent_obs + n_obs, 0)
        self._saturated_obs = torch.where(saturated, self._saturated_obs + n_obs, 0)
        self._total_obs += n_obs
        self._window_obs += n_obs
        verdicts: Counters = {
            "evidence_n_obs": min(self._total_obs, DEAD_EVIDENCE_OBS),
        }
        if self._total_obs < DEAD_EVIDENCE_OBS:
            return verdicts
        verdicts["n_dead"] = (self._silent_obs >= DEAD_EVIDENCE_OBS).sum()
        verdicts["n_saturated"] = (self._saturated_obs >= DEAD_EVIDENCE_OBS).sum()
        if self._window_obs >= DEAD_EVIDENCE_OBS:
            verdicts["silent"] = pack_bits(self._silent_obs >= self._window_obs)
            verdicts["silent_n_obs"] = self._window_obs
            self._window_obs = 0
        return verdicts
