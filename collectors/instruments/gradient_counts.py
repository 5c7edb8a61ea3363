"""The counters of ∂L/∂s at one spiking layer, taken while the backward pass runs."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spikewatch.observing import Counters, Counts, OnHost

from ..arrays import Readings, norms
from ..calls import Call, Subject
from ..hooks import Hook
from .state_use import StateUse


# Of one gradient: its time steps, elements in each, and the first of its time steps if known.
_Entry = tuple[int, int, int | None]
_NAMES = (
    "n_grad",
    "sum_sq_grad",
    "n_nonfinite_grad",
    "sum_sq_grad_first",
    "sum_sq_grad_last",
)


class GradientCounts:
    """Norms of the gradients that reach the spikes: in all, and at both ends of a sequence."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._state = StateUse(subject)
        self._handles: list[Any] = []  # on leaves
        self._clear()
        self._hooks: dict[int | None, Hook] = {}  # by the axis of time: calls that are alike share

    def _clear(self) -> None:
        self._awaited = False
        self._norms = Readings()  # one for each time step
        self._entries: list[_Entry] = []
        self._n_calls = 0  # of a sample, in the forward pass
        self._block = _Block()

    def add(self, call: Call) -> None:
        """Have ∂L/∂s counted when the backward pass reaches the spikes."""
        if self._entries and not self._awaited:
            self._clear()  # late ones, of a step that is over, and in which this one was not due
        block = None
        if call.again:
            if self._block.is_over:
                self._block = _Block()
            block = self._block
            block.n_calls += 1
        elif call.time is not None:
            self._n_calls = max(self._n_calls, call.time + 1)
        if call.has_graph:
            handle = call.on_gradient(self._hook(call, block))
            if handle is not None:
                self._handles.append(handle)
            self._awaited = True
            self._state.add(call)

    def _hook(self, call: Call, block: "_Block | None") -> Hook:
        axis, time, unfold = call.axes.time, call.time, call.unfold
        usual = None if axis is None else 0
        if time != usual or block is not None or unfold is not None:
            how = partial(self._add_gradient, axis, time, block, unfold)
            return self._subject.in_backward(how)
        hook = self._hooks.get(axis)
        if hook is None:
            how = partial(self._add_gradient, axis, usual, None, None)
            hook = self._hooks[axis] = self._subject.in_backward(how)
        return hook

    def _add_gradient(
        self,
        axis: int | None,
        time: int | None,
        block: "_Block | None",
        unfold: Callable[[Tensor], Tensor] | None,
        gradient: Tensor,
    ) -> None:
        if block is not None:
            block.is_over = True
            if axis is None and block.n_calls != self._n_calls:
                time = None  # blocks are run again in the opposite order
        gradient = gradient.detach() if unfold is None else unfold(gradient.detach())
        if axis is None:
            wide = None if gradient.dtype.itemsize >= 4 else torch.float32
            self._norms.add(torch.linalg.vector_norm(gradient, dtype=wide))
            self._entries.append((1, gradient.numel(), time))
            return
        self._norms.add(norms(gradient, axis))
        n_steps = gradient.shape[axis]
        self._entries.append((n_steps, gradient.numel() // max(1, n_steps), time))

    def flush(self) -> Counts | None:
        """Counters of ∂L/∂s in the table `gradients`."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if not self._awaited and not self._entries:
            return None
        self._state.end(spikes_used=bool(self._entries))
        # No backward pass came by: the loss uses no spikes, or another optimizer is to use them.
        counters: Counters = {"n_grad": None if self._subject.misses_turns else 0}
        if self._state.is_used:
            counters["is_unused"] = 1
        if self._entries:
            counters = {_NAMES: self._folded()}
        self._clear()
        return Counts({"gradients": counters})

    def _folded(self) -> OnHost:
        scale = self._subject.loss_scale
        if isinstance(scale, Tensor):  # on a device that nobody waits for
            self._norms.add(scale)
            fold = partial(_fold_scaled, self._entries)
        else:
            fold = partial(_fold, self._entries, scale or 1.0)
        return OnHost(self._norms.take(), fold)


@dataclass
class _Block:
    """A reentrant checkpoint's block that is run again: its calls, until the first gradient."""

    n_calls: int = 0
    is_over: bool = False


def _fold_scaled(entries: list[_Entry], norms: Sequence[float]) -> Mapping[str, float | int | None]:
    return _fold(entries, norms[-1], norms[:-1])


def _fold(
    entries: list[_Entry], scale: float, norms: Sequence[float]
) -> Mapping[str, float | int | None]:
    """Sums over all time steps, and over the first and the last one of the samples.

    Args:
        entries: What the norms are of.
        scale: What the loss was multiplied by.
        norms: One for each time step.
    """
    n_grad, n_bad, total = 0, 0, 0.0
    by_time: dict[int, float] = defaultdict(float)
    numbers = iter(norms)
    for length, size, time in entries:
        for step in range(length):
            square = (next(numbers) / scale) ** 2
            if not math.isfinite(square):
                n_bad += 1
                continue
            n_grad += size
            total += square
            if time is not None:
                by_time[time + step] += square
    last = max(by_time, default=0)
    ends = (by_time.get(0), by_time[last]) if last > 0 else (None, None)
    return dict(zip(_NAMES, (n_grad, total, n_bad, *ends), strict=True))
