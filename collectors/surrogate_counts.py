"""The counters of σ′, the surrogate's derivative, at one spiking layer.

σ′ of a whole step would cost as much as the surrogate's part of the backward pass, so after the
first observed step it is read at one time step of the sequence, another one each time; the rows
count what was read.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from spikewatch.metrics.gradients import CARRYING_EVIDENCE_OBS, SG_ACTIVE
from spikewatch.observing import Counters, Counts

from .calls import Call, Subject
from .hooks import saved_tensors_are_hooked
from .sums import Tally, in_full_precision
from .surrogate import draws_random_numbers, local_derivative, output_shape


_RANDOM = (
    "its surrogate gradient draws random numbers. Reading σ′ would change the training's, so σ′ is "
    "not read"
)


class SurrogateCounts:
    """Reads σ′ of the calls that are probed."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._tally = Tally(3)
        self._lowest: list[Tensor] = []
        self._idle_obs: Tensor | None = None
        self._total_obs = 0
        self._safe: bool | None = None

    def add(self, call: Call) -> None:
        """Read σ′ of one call from its surrogate nodes."""
        if not (call.probed and call.nodes) or saved_tensors_are_hooked():
            return
        if self._safe is None:
            self._safe = not draws_random_numbers(call.nodes[0])
            if not self._safe:
                self._subject.tell(_RANDOM)
        if self._safe:
            for slope, dims in _slopes(call):
                self._add(slope, dims)

    def _add(self, slope: Tensor, dims: tuple[int, ...] | None) -> None:
        slope = in_full_precision(slope)
        size, lowest = slope.numel(), slope.amin()
        # In-place operations may not touch `slope`: a Function may return what it was given.
        slope = slope.abs()
        flat = slope.flatten()
        total, squares = flat.sum(), torch.dot(flat, flat)
        active = torch.gt(slope, SG_ACTIVE, out=torch.empty_like(slope))
        self._tally.add(size, total, squares, active.sum())
        self._lowest.append(lowest)
        if dims is None:
            return
        carrying = (active.amax(dims) if dims else active).flatten()
        n_obs = size // max(1, carrying.numel())
        if self._idle_obs is None:
            self._idle_obs = torch.zeros_like(carrying)
        self._idle_obs.add_(n_obs).mul_(1 - carrying)
        self._total_obs += n_obs

    def flush(self) -> Counts | None:
        """Counters of σ′ in the table `gradients`."""
        if not self._tally:
            return None
        n_sg, sums, n_nonfinite = self._tally.take()
        lowest, self._lowest = torch.stack(self._lowest), []
        counters: Counters = {
            "n_sg": n_sg,
            "sum_sg": sums[0],
            "sum_sq_sg": sums[1],
            "n_sg_active": sums[2],
            "n_sg_nonfinite": n_nonfinite,
            "n_sg_negative": (lowest < 0).sum(),
        }
        if self._idle_obs is not None:
            carrying = self._idle_obs < min(self._total_obs, CARRYING_EVIDENCE_OBS)
            counters["n_sg_neurons"] = carrying.numel()
            counters["n_carrying"] = carrying.sum()
            dead = self._subject.dead
            if dead is not None and dead.numel() == carrying.numel():
                alive = (dead.flatten() & carrying).sum()
                counters["n_dead_carrying"] = alive
                counters["n_dead_lost"] = dead.sum() - alive
        return Counts({"gradients": counters})


def _slopes(call: Call) -> Iterator[tuple[Tensor, tuple[int, ...] | None]]:
    """σ′ of the nodes to be read, each with its dimensions of time and batch (None: unknown)."""
    shape, axes = call.values.shape, call.axes
    step = axes.one_step(shape)
    groups = _groups(call)
    if call.pick is not None:
        groups = [groups[int(call.pick * len(groups))]]
    for group in groups:
        slope = _sum_of(group)
        if slope is None:
            return
        if slope.dim() == len(shape) and axes.neurons(slope.shape) == axes.neurons(shape):
            yield slope, axes.dims
        elif step is not None and tuple(slope.shape) == step.shape:
            yield slope, step.dims
        else:
            yield slope, None


def _groups(call: Call) -> list[list[Any]]:
    """Nodes whose derivatives add up (a ternary spike has two thresholds), in the order of time."""
    nodes, shape = call.nodes, tuple(call.values.shape)
    if output_shape(nodes[0]) == shape:
        return [nodes]
    each, rest = divmod(len(nodes), call.n_steps)
    if call.axes.time is None or each == 0 or rest:
        return [[node] for node in nodes]
    return [nodes[i * each : (i + 1) * each] for i in range(call.n_steps)]


def _sum_of(nodes: list[Any]) -> Tensor | None:
    """σ′ of a spike with several thresholds: the derivatives add up."""
    slopes = []
    for node in nodes:
        slope = local_derivative(node)
        if slope is None:
            return None
        slopes.append(slope)
    if len({s.shape for s in slopes}) > 1:
        return slopes[0]
    return sum(slopes[1:], start=slopes[0])
