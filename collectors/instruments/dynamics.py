"""Threshold, decay and trainable parameters of a spiking layer, and whether gradient reaches them.

Read in steps with the dear readings: threshold and decay as the forward pass used them, gradients
when the step ends.
"""

import math
import re
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from spikewatch.metrics.dynamics import DECAY_EXTREMES, THRESHOLD_CLAMP
from spikewatch.observing import Counters, Counts, OnHost

from ..calls import Call, Subject
from ..idle_parameters import IdleParameters
from ..library import Dynamics


_THRESHOLDS = (
    "n_thresholds", "sum_threshold", "threshold_min", "threshold_max",
    "n_thresholds_out", "n_thresholds_pinned",
)  # fmt: skip
# What libraries and users call a threshold that is a parameter.
_OF_THRESHOLDS = re.compile("thr|v_?th|theta", re.IGNORECASE)


_DECAY = (
    "n_decays", "sum_decay", "decay_min", "decay_max", "n_decays_out", "n_decays_extreme",
)  # fmt: skip


class DynamicsReader:
    """Reads the parameters that decide when a neuron fires."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._counters: Counters | None = None  # of the step that runs, once it was due
        self._learnable: Mapping[str, nn.Parameter] = {}
        self._with_graph = False
        self._guess = _Guess()
        self._before: Tensor | None = None  # the thresholds at the latest reading, if they learn
        self._idle = IdleParameters(
            "n_learnable", "n_without_gradient", "without_gradient_rows", tell=subject.tell
        )

    def add(self, call: Call) -> None:
        """Read the parameters at the first call of a step, before the optimizer moves them."""
        self._with_graph |= call.has_graph
        if self._counters is None and call.module is not None:
            with torch.no_grad():
                self._read(self._subject.library.dynamics(call.module))

    def _read(self, dynamics: Dynamics) -> None:
        self._learnable = dynamics.learnable
        if dynamics.unknown:
            self._subject.tell(dynamics.unknown)
        learned = any(_OF_THRESHOLDS.search(name) for name in dynamics.learnable)
        self._counters = _threshold(dynamics, learned=learned, before=self._before) | _decay(
            dynamics.decay, self._guess if dynamics.decay_guessed else None
        )
        if learned and isinstance(dynamics.threshold, Tensor):
            self._before = dynamics.threshold.detach().float().flatten().clone()

    def flush(self) -> Counts | None:
        """Counters of the table `dynamics`."""
        counters, self._counters = self._counters, None
        learnable, self._learnable = self._learnable, {}
        if (
            counters is not None
            and learnable
            and self._with_graph
            and not self._subject.misses_turns
        ):
            with torch.no_grad():
                counters[self._idle.names] = self._idle.read(learnable)
        return Counts({"dynamics": counters}) if counters else None


def _threshold(dynamics: Dynamics, *, learned: bool, before: Tensor | None) -> Counters:
    """Counters of the thresholds.

    One that moves, as of units in which 0.01 is no clamp, is not pinned; the first reading cannot
    tell.

    A fixed one of +∞ is none: it makes a readout of a neuron, which is never to fire. A fixed one
    may be negative, as potentials in millivolt are; one that learns may not, but above v_reset.
    """
    threshold = dynamics.threshold
    if threshold is None:
        return {}
    if not isinstance(threshold, Tensor):
        if threshold == math.inf:
            return {}
        return {**_row_of([1.0, threshold, threshold, threshold, _is_out(threshold), 0.0])}
    threshold = threshold.detach().float().flatten()
    low, high = THRESHOLD_CLAMP
    out, pinned = ~threshold.isfinite() | (threshold == 0), torch.zeros_like(threshold)
    counted = torch.ones_like(threshold, dtype=torch.bool)
    if learned:
        in_millivolt = (threshold < 0) & _is_over(threshold, dynamics.reset_to)
        out |= (threshold < 0) & ~in_millivolt
        pinned = ((threshold <= low) & ~in_millivolt) | (threshold >= high)
        if before is not None and before.shape == threshold.shape:
            pinned &= threshold == before
    else:
        counted = threshold != math.inf
        out &= counted
    sums = (
        counted.sum(),
        threshold.where(counted, 0).sum(dtype=torch.float64),
        threshold.min(),
        threshold.where(counted, -math.inf).max(),
        out.sum(),
        pinned.sum(),
    )
    return {_THRESHOLDS: OnHost(torch.stack([x.double() for x in sums]), _row_of)}


def _is_over(threshold: Tensor, reset_to: Tensor | float | None) -> Tensor:
    if isinstance(reset_to, Tensor) and reset_to.numel() == 1:
        reset_to = reset_to.detach().to(threshold).reshape(())
    elif reset_to is None or isinstance(reset_to, Tensor):
        reset_to = math.inf
    return threshold > reset_to


def _is_out(threshold: float) -> float:
    return float(not math.isfinite(threshold) or threshold == 0)


def _row_of(sums: list[float]) -> Mapping[str, float]:
    return dict(zip(_THRESHOLDS, sums, strict=True)) if sums[0] else {}


def _decay(decay: Tensor | float | None, guess: "_Guess | None") -> Counters:
    if decay is None:
        return {}
    low, high = DECAY_EXTREMES
    if not isinstance(decay, Tensor):
        if guess is not None and not 0 <= decay <= 1:
            return {}
        numbers = (
            1, decay, decay, decay, int(not 0 < decay < 1), int(not low <= decay <= high),
        )  # fmt: skip
        return dict(zip(_DECAY, numbers, strict=True))
    decay = decay.detach().float().flatten()
    healthy, moderate = (decay > 0) & (decay < 1), (decay >= low) & (decay <= high)
    counters: Counters = {
        "n_decays": decay.numel(),
        "sum_decay": decay.sum(),
        "decay_min": decay.min(),
        "decay_max": decay.max(),
        "n_decays_out": decay.numel() - healthy.sum(),
        "n_decays_extreme": decay.numel() - moderate.sum(),
    }
    if guess is None:
        return counters
    readings = torch.stack([x.float() for x in counters.values() if isinstance(x, Tensor)])
    return {_DECAY: OnHost(readings, partial(guess.fold, decay.numel()))}


class _Guess:
    """What is taken for a decay by its name: one that was within (0, 1) once may learn to leave it.

    What never was is something else: a time constant in steps, or the sharpness of a surrogate.
    """

    def __init__(self) -> None:
        self._is_decay = False

    def fold(self, n_decays: int, readings: list[float]) -> Mapping[str, float | None]:
        """The counters, once the values are on the host. Only the writer's thread comes here."""
        pairs = zip(_DECAY, (n_decays, *readings), strict=True)
        found = {name: int(x) if name.startswith("n_") else x for name, x in pairs}
        low, high = found["decay_min"], found["decay_max"]
        self._is_decay |= low > 0 and high < 1
        known = self._is_decay or (low >= 0 and high <= 1)
        return found if known else dict.fromkeys(_DECAY)
