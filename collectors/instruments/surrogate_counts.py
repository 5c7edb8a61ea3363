"""The counters of σ′, the surrogate's derivative, at one spiking layer.

σ′ of a whole step would cost as much as the surrogate's part of the backward pass, so after the
first observed step it is read at one time step of the sequence and for some samples of the batch,
others each time: about 8192 slots, of all neurons. The rows count what was read; of a share p of
slots that is a sample with a standard error of √(p(1−p)/8192), at most 0.006.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from spikewatch.metrics.gradients import CARRYING_EVIDENCE_OBS, SG_ACTIVE
from spikewatch.observing import Counters, Counts

from ..arrays import Array, as_array, count
from ..calls import GOLDEN_RATIO, Call, Subject
from ..hooks import keeps_elsewhere, saved_tensors_are_hooked
from ..sums import Tally, in_full_precision
from ..surrogate import (
    can_be_read_in_part,
    draws_random_numbers,
    has_effects,
    local_derivative,
    output_shape,
    turns_negative,
)
from .late_slopes import LateSlopes


_READ_SLOTS = 8192
_RANDOM = (
    "its surrogate gradient draws random numbers, or changes something when it is called. Reading "
    "σ′ would change the training, so σ′ is not read"
)


class SurrogateCounts:
    """Reads σ′ of the calls that are probed."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._tally = Tally(
            "sum_sg", "sum_sq_sg", "n_sg_active", "n_sg_negative", size="n_sg", bad="n_sg_nonfinite"
        )
        self._late = LateSlopes(subject)
        self._idle_obs: Array | None = None  # int64: for so many until now
        self._total_obs = 0
        self._carrying: Counters = {}
        self._safe: bool | None = None
        self._in_part = False
        self._n_read = 0
        self._in_first_step = True

    def add(self, call: Call) -> None:
        """Read σ′ of one call from its surrogate nodes."""
        if not (call.probed and call.nodes):
            return
        if saved_tensors_are_hooked() or any(map(keeps_elsewhere, call.nodes)):
            for group in _groups_to_read(call):
                self._late.await_backward(group)
            return
        if self._safe is None:
            self._look_at(call.nodes[0])
        if self._safe:
            for slope, dims in self._slopes(call):
                self._add(slope, dims)

    def _look_at(self, node: Any) -> None:
        self._safe = not (has_effects(node._forward_cls) or draws_random_numbers(node))
        if self._safe:
            self._in_part = can_be_read_in_part(node)
        else:
            self._subject.tell(_RANDOM)

    def _add(self, slope: Tensor, dims: tuple[int, ...] | None) -> None:
        slope = in_full_precision(slope)
        size, negative = slope.numel(), turns_negative(slope)
        # In-place operations may not touch `slope`: a Function may return what it was given.
        slope = slope.abs()
        flat = slope.flatten()
        total, squares = flat.sum(), torch.dot(flat, flat)
        active = torch.gt(slope, SG_ACTIVE, out=torch.empty_like(slope))
        self._tally.add(size, total, squares, active.sum(), negative)
        if dims is None:
            return
        carrying = active.amax(dims) if dims else active
        n_obs = size // max(1, carrying.numel())
        idle = as_array(carrying.flatten()) == 0
        if self._idle_obs is None:
            self._idle_obs = idle * n_obs
        else:
            self._idle_obs += n_obs
            self._idle_obs *= idle
        self._total_obs += n_obs

    def _slopes(self, call: Call) -> Iterator[tuple[Tensor, tuple[int, ...] | None]]:
        """σ′ of the nodes to be read, each with its dimensions of time and batch."""
        shape, axes = call.values.shape, call.axes
        step = axes.one_step(shape)
        for group in _groups_to_read(call):
            whole = output_shape(group[0])
            dims: tuple[int, ...] | None = None
            if len(whole) == len(shape) and axes.neurons(whole) == axes.neurons(shape):
                dims = axes.dims
            elif step is not None and whole == step.shape:
                dims = step.dims
            slope = _sum_of(group, self._some_rows(whole, dims))
            if slope is None:
                return
            yield slope, dims

    def _some_rows(self, shape: tuple[int, ...], dims: tuple[int, ...] | None) -> slice | None:
        """Samples to read; other ones each time, and all of them in the first step."""
        self._n_read += 1
        if self._in_first_step or not self._in_part or not dims or 0 not in dims:
            return None
        n = max(1, _READ_SLOTS * shape[0] // math.prod(shape))
        if n >= shape[0]:
            return None
        start = int(self._n_read * GOLDEN_RATIO % 1.0 * (shape[0] - n + 1))
        return slice(start, start + n)

    def flush(self) -> Counts | None:
        """Counters of σ′; where it was not read in this step, who carries as of the last time."""
        late = self._late.flush()
        if not self._tally:
            counters = (late or {}) | self._carrying
            return Counts({"gradients": counters}) if counters else None
        self._in_first_step = False
        self._carrying = self._who_carries()
        return Counts({"gradients": {self._tally.names: self._tally.take(), **self._carrying}})

    def _who_carries(self) -> Counters:
        if self._idle_obs is None:
            return {}
        evidence = min(self._total_obs, CARRYING_EVIDENCE_OBS)
        carries = self._idle_obs < evidence
        counters: Counters = {"n_sg_neurons": len(carries), "n_carrying": count(carries)}
        dead = None if self._subject.dead is None else self._subject.dead.reshape(-1)
        if dead is not None and len(dead) == len(carries):
            counters["n_dead_carrying"] = count(dead & carries)
            counters["n_dead_lost"] = count(dead & ~carries)
        return counters


def _groups_to_read(call: Call) -> list[list[Any]]:
    groups = _groups(call)
    return groups if call.pick is None else [groups[int(call.pick * len(groups))]]


def _groups(call: Call) -> list[list[Any]]:
    """Nodes whose derivatives add up (a ternary spike has two thresholds), in the order of time."""
    nodes, shape = call.nodes, tuple(call.values.shape)
    if output_shape(nodes[0]) == shape:
        return [nodes]
    each, rest = divmod(len(nodes), call.n_steps)
    if call.axes.time is None or each == 0 or rest:
        return [[node] for node in nodes]
    return [nodes[i * each : (i + 1) * each] for i in range(call.n_steps)]


def _sum_of(nodes: list[Any], rows: slice | None) -> Tensor | None:
    """σ′ of a spike with several thresholds: the derivatives add up."""
    slopes = []
    for node in nodes:
        slope = local_derivative(node, rows)
        if slope is None:
            return None
        slopes.append(slope)
    if len({s.shape for s in slopes}) > 1:
        return slopes[0]
    return sum(slopes[1:], start=slopes[0])
