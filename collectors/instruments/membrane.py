"""Reading the membrane potential: from the surrogate's node, or from what the library keeps.

The node's first saved tensor is the very potential that was compared with the threshold, or its
distance from it. Which of the two, a library states; it is held against the spikes before it is
used, since a file on a library may be wrong, or old, and of users' neurons nothing is stated.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spikewatch.metrics.membrane import MEMBRANE, RUNAWAY_THRESHOLDS, Z_BINS, Z_EDGES
from spikewatch.observing import Counts, Histogram, OnHost

from ..arrays import (
    Array,
    as_tensor,
    count,
    count_bins,
    in_a_row,
    joined,
    on_host,
    sample,
    where,
)
from ..calls import SPREAD_STEPS, Call, Subject
from ..hooks import keeps_elsewhere, saved_tensors_are_hooked
from ..library import Dynamics, Saved
from ..strides import fair_stride
from ..surrogate import output_shape
from .scaled_distance import unit_of
from .thresholds import scale_of


_NAMES = tuple(counter.name for counter in MEMBRANE.counters)
_MOST = 4096 // SPREAD_STEPS  # of one time step
# Quarter thresholds from z = −4 to 4: the edges of the coarse bins are among them.
_EDGES = tuple(k / 4 for k in range(-16, 17))
_SUMS = ("n", "without", "pre_reset", "sum", "squares", "above", "runaway", "n_error", "error")
_FIRST_READINGS = 8  # passed over: the start of a training is no reference
_REFERENCE_SIZE = 8192
_AGREES = 0.98
_MOST_LOOKS = 8  # at what a node saves, where each one waits for the device


class _Reading(NamedTuple):
    """Potentials in thresholds, z, with the spikes beside them where both are known."""

    z: Array  # NaN where the threshold is no number to divide by
    spikes: Array | None
    pre_reset: bool
    n_without: Any = 0  # how many of them have such a threshold


class MembraneReader:
    """Reads the potential at the calls that are probed."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._saved: str | None = None  # what the node saves: "u-theta", "u"; "" is neither
        self._n_looks = 0
        self._readings: list[_Reading] = []
        self._reference = _Reference()

    def add(self, call: Call) -> None:
        """Read the potential of one call."""
        if not call.spread or call.again or call.module is None:
            return
        # Without a graph of ours: a checkpoint would take what it saves for its own. And potentials
        # may be anything.
        with torch.no_grad(), np.errstate(all="ignore"):
            dynamics = self._subject.library.dynamics(call.module)
            if dynamics.threshold is None:
                return
            readings = [r for r in self._from_graph(call, dynamics) if r is not None]
            if not readings and (kept := self._from_library(call, dynamics)) is not None:
                readings = [kept]
        self._readings += readings

    def _from_graph(self, call: Call, dynamics: Dynamics) -> Iterator[_Reading | None]:
        if not call.nodes or self._saved == "" or saved_tensors_are_hooked():
            return
        for node, spikes in _nodes_and_spikes(call):
            yield self._from_node(node, spikes, dynamics, call)

    def _from_node(
        self, node: Any, spikes: Tensor, dynamics: Dynamics, call: Call
    ) -> _Reading | None:
        if keeps_elsewhere(node):
            return None
        saved = next(iter(node.saved_tensors), None)
        if not isinstance(saved, Tensor) or saved.shape != output_shape(node):
            return None
        stride = fair_stride(saved.numel(), _MOST)
        scale = scale_of(dynamics, saved, stride, call=call, subject=self._subject)
        if scale is None:
            return None
        far = not on_host(saved)
        whole, saved, spikes = saved, sample(saved, stride), sample(spikes, stride)
        stated = self._subject.library.saved_by(node._forward_cls)
        known = self._saved or self._find_out(stated, saved, spikes, scale.theta, far=far)
        if not known:
            return None
        if known == "u":
            distance = saved - scale.theta
        else:
            unit = unit_of(node, whole, scale.theta, stride=stride)
            distance = saved if unit is None else saved * unit
        return _reading(distance, scale.unit, spikes, pre_reset=True)

    def _find_out(
        self, stated: Saved, saved: Array, spikes: Array, theta: Array, *, far: bool
    ) -> str:
        """What the node saves. Settled once there were spikes and silence to hold it against.

        Where the device is `far`, comparing would wait for it.
        """
        self._n_looks += 1
        if stated != "other" and far:
            self._saved = stated
            return stated
        if self._n_looks > _MOST_LOOKS and far:
            return ""
        fired = spikes > 0
        agree = [
            meaning
            for meaning in dict.fromkeys((stated, "u-theta", "u"))
            if meaning != "other" and _agrees(_is_over(saved, theta, meaning), fired)
        ]
        if fired.all() or not fired.any():
            return _of_one_sort(stated, agree, saved)
        # A node that keeps its own output would pass for one that keeps the potential.
        self._saved = agree[0] if agree and not (saved == spikes).all() else ""
        return self._saved

    def _from_library(self, call: Call, dynamics: Dynamics) -> _Reading | None:
        module = call.module
        if module is None:
            return None
        membrane = self._subject.library.membrane(module, call.output)
        if membrane is None:
            return None
        potential = membrane.potential.detach()
        stride = fair_stride(potential.numel(), _MOST)
        scale = scale_of(dynamics, potential, stride, call=call, subject=self._subject)
        if scale is None:
            return None
        same = potential.shape == call.spikes.shape and membrane.pre_reset
        spikes = sample(call.spikes, stride) if same else None
        distance = sample(potential, stride) - scale.theta
        return _reading(distance, scale.unit, spikes, pre_reset=membrane.pre_reset)

    def flush(self) -> Counts | None:
        """Counters of the table `membrane`, and the histogram of z."""
        if not self._readings:
            return None
        # Each operation costs microseconds however few elements it is given: once for all readings.
        kinds = sorted({_kind(r) for r in self._readings})
        parts = [_joined([r for r in self._readings if _kind(r) == kind]) for kind in kinds]
        self._readings = []
        with np.errstate(all="ignore"):
            whole = sum(map(_sums, parts[1:]), start=_sums(parts[0]))
        counts = as_tensor(whole[len(_SUMS) :]).long()
        fold = partial(_fold, self._reference, sum(len(part.z) for part in parts))
        readings = whole if isinstance(whole, Tensor) else whole.tolist()
        histogram = Histogram("membrane", _EDGES, counts[1:-1], counts[0], counts[-1])
        return Counts({"membrane": {_NAMES: OnHost(readings, fold)}}, [histogram])


def _reading(
    distance: Array, unit: Array, spikes: Array | None, *, pre_reset: bool
) -> _Reading | None:
    """Z of potentials that are so far from θ; None where θ is no number to divide by."""
    usable = (unit > 0) & (unit < float("inf"))
    if isinstance(unit, float):
        return _Reading(distance / unit, spikes, pre_reset) if usable else None
    z = where(usable, distance / unit, float("nan"))
    return _Reading(z, spikes, pre_reset, (~usable).sum() * (len(z) if not usable.ndim else 1))


def _is_over(saved: Array, theta: Array, meaning: str) -> Array:
    return saved >= (0 if meaning == "u-theta" else theta)


def _agrees(over: Array, fired: Array) -> bool:
    """Whether those are over the threshold that fired, and those below it that did not."""
    parts = (over[fired], ~over[~fired])
    return all(len(part) == 0 or _share(part) >= _AGREES for part in parts)


def _of_one_sort(stated: Saved, agree: Sequence[str], saved: Array) -> str:
    """What to take the saved tensor for while all neurons are silent, or all of them fire.

    A derivative is never negative. So it passes for u − θ where all fire, and for a potential that
    is below the threshold where none does.
    """
    if stated != "other":
        return stated if stated in agree else ""
    return "u" if agree == ["u"] and (saved < 0).any() else ""


def _share(true: Array) -> float:
    return float(count(true) / len(true))


def _kind(reading: _Reading) -> tuple[bool, bool]:
    return (reading.spikes is None, reading.pre_reset)


def _joined(readings: Sequence[_Reading]) -> _Reading:
    """Readings of one kind as one."""
    spikes = [r.spikes for r in readings if r.spikes is not None]
    z, n_without = joined([r.z for r in readings]), sum(r.n_without for r in readings)
    return _Reading(z, joined(spikes) if spikes else None, readings[0].pre_reset, n_without)


def _sums(reading: _Reading) -> Array:
    """Those that `_SUMS` names, then the counts in the bins; float64."""
    finite = reading.z - reading.z == 0
    z = where(finite, reading.z, 0.0)
    n = count(finite)
    potential = z + finite  # from the reset potential
    above, runaway = count((z >= 0) & finite), count(abs(potential) > RUNAWAY_THRESHOLDS)
    n_error = error = n * 0
    if reading.spikes is not None:
        miss = where(finite, potential - reading.spikes, 0.0)
        n_error, error = n, miss @ miss
    pre_reset = n if reading.pre_reset else n * 0
    without = n * 0 + reading.n_without
    sums = [n, without, pre_reset, z.sum(), z @ z, above, runaway, n_error, error]
    counts = count_bins(z, _EDGES[0], 0.25, len(_EDGES) - 1, finite)
    return in_a_row(sums, counts)


class _Reference:
    """The window that later ones are compared with. Only the writer thread touches it."""

    def __init__(self) -> None:
        self._n_passed = 0
        self._row: dict[str, float] = {}
        self.full: dict[str, float] = {}

    def add(self, row: Mapping[str, float]) -> None:
        """Take in a reading until there are enough."""
        self._n_passed += 1
        if self.full or self._n_passed <= _FIRST_READINGS:
            return
        for name in ("n_membrane", "sum_z", "sum_sq_z", *Z_BINS):
            key = f"reference_{name}"
            self._row[key] = self._row.get(key, 0) + row[name]
        if self._row["reference_n_membrane"] >= _REFERENCE_SIZE:
            self.full = self._row


def _fold(reference: _Reference, size: int, numbers: list[float]) -> Mapping[str, float]:
    sums = dict(zip(_SUMS, numbers, strict=False))
    counts = numbers[len(_SUMS) :]
    n_with = size - sums["without"]
    if not n_with:
        return {}
    bins = _coarse(counts)
    row = {
        "n_membrane": sums["n"],
        "n_membrane_nonfinite": n_with - sums["n"],
        "n_membrane_pre_reset": sums["pre_reset"],
        "sum_z": sums["sum"],
        "sum_sq_z": sums["squares"],
        "n_above_threshold": sums["above"],
        "n_runaway": sums["runaway"],
        "n_quantization": sums["n_error"],
        "sum_sq_quantization": sums["error"],
    } | dict(zip(Z_BINS, bins, strict=True))
    reference.add(row)
    return row | reference.full


def _coarse(counts: Sequence[float]) -> list[float]:
    """Counts below, between and above fine edges, as counts in the coarse bins."""
    bins = [0.0] * len(Z_BINS)
    bins[0] += counts[0]
    for low, n in zip(_EDGES, counts[1:], strict=True):
        bins[bisect_right(Z_EDGES, low)] += n
    return bins


def _nodes_and_spikes(call: Call) -> Iterator[tuple[Any, Tensor]]:
    """Nodes of some time steps, spread over the sequence, each with the spikes that it made.

    Of all time steps where σ′ is read of all of them, in the first step with the dear readings.
    """
    nodes, values, axis = call.nodes, call.values, call.axes.time
    if output_shape(nodes[0]) == tuple(values.shape):
        yield nodes[0], values
        return
    step, n_steps = call.axes.one_step(values.shape), call.n_steps
    each, rest = divmod(len(nodes), n_steps)
    if axis is None or step is None or rest or not each or output_shape(nodes[0]) != step.shape:
        return
    width = 1 if call.pick is None else -(-n_steps // SPREAD_STEPS)
    for chosen in range(int((call.pick or 0.0) * width), n_steps, width):
        yield nodes[chosen * each], values.select(axis, chosen)
