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

from .calls import Call, Subject
from .idle_parameters import IdleParameters
from .library import Dynamics


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
        learned = any(_OF_THRESHOLDS.search(name) for name in dynamics.learnable)
        self._counters = _threshold(dynamics.threshold, learned=learned) | _decay(
            dynamics.decay, guessed=dynamics.decay_guessed
        )

    def flush(self) -> Counts | None:
        """Counters of the table `dynamics`."""
        counters, self._counters = self._counters, None
        learnable, self._learnable = self._learnable, {}
        if counters is not None and learnable and self._with_graph:
            with torch.no_grad():
                counters[self._idle.names] = self._idle.read(learnable)
        return Counts({"dynamics": counters}) if counters else None


def _threshold(threshold: Tensor | float | None, *, learned: bool) -> Counters:
    if threshold is None:
        return {}
    # An infinite threshold that nobody trains is meant so: of a readout by its membrane.
    most = torch.finfo(torch.float32).max if learned else math.inf
    if not isinstance(threshold, Tensor):
        ok = 0 < threshold <= most
        return {
            "n_thresholds": 1,
            "sum_threshold": threshold,
            "threshold_min": threshold,
            "threshold_max": threshold,
            "n_thresholds_out": int(not ok),
            "n_thresholds_pinned": 0,
        }
    low, high = THRESHOLD_CLAMP
    threshold = threshold.detach().float().flatten()
    healthy = (threshold > 0) & (threshold <= most)  # NaN is neither
    counters: Counters = {
        "n_thresholds": threshold.numel(),
        "sum_threshold": threshold.sum(),
        "threshold_min": threshold.min(),
        "threshold_max": threshold.max(),
        "n_thresholds_out": threshold.numel() - healthy.sum(),
        "n_thresholds_pinned": 0,
    }
    if learned:
        counters["n_thresholds_pinned"] = ((threshold <= low) | (threshold >= high)).sum()
    return counters


def _decay(decay: Tensor | float | None, *, guessed: bool) -> Counters:
    if decay is None:
        return {}
    low, high = DECAY_EXTREMES
    if not isinstance(decay, Tensor):
        if guessed and not 0 <= decay <= 1:
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
    if not guessed:
        return counters
    readings = torch.stack([x.float() for x in counters.values() if isinstance(x, Tensor)])
    return {_DECAY: OnHost(readings, partial(_fold_guessed, decay.numel()))}


def _fold_guessed(n_decays: int, readings: list[float]) -> Mapping[str, float | None]:
    """The counters of a decay that may be none, which its values tell once they are on the host."""
    pairs = zip(_DECAY, (n_decays, *readings), strict=True)
    found = {name: int(x) if name.startswith("n_") else x for name, x in pairs}
    beyond = found["decay_min"] < 0 or found["decay_max"] > 1
    return dict.fromkeys(_DECAY) if beyond else found
