"""The counters of ∂L/∂s at one spiking layer, taken while the backward pass runs."""

from functools import partial

import torch
from torch import Tensor

from spikewatch.observing import Counters, Counts

from .calls import Call, Subject
from .hooks import Hook


class GradientCounts:
    """Norms of the gradients that reach the spikes: in all, and at both ends of a sequence."""

    def __init__(self, subject: Subject) -> None:
        del subject
        self._clear()

    def _clear(self) -> None:
        self._awaited = False
        self._norms: list[Tensor] = []  # [steps] of a sequence, else [1]
        self._sizes: list[int] = []  # elements behind each entry of a norm
        self._times: list[int | None] = []

    def add(self, call: Call) -> None:
        """Have ∂L/∂s counted when the backward pass reaches the spikes.

        A hook on the tensor, never a full backward hook of the module: that one breaks programs
        which change the spikes in place.
        """
        if call.spikes.requires_grad:
            body = partial(self._add_gradient, call.axes.time, call.time)
            call.spikes.register_hook(Hook(body))
            self._awaited = True

    def _add_gradient(self, axis: int | None, time: int | None, gradient: Tensor) -> None:
        gradient = gradient.detach()
        wide = None if gradient.dtype.itemsize >= 4 else torch.float32
        norm = torch.linalg.vector_norm
        if axis is None:
            norms = norm(gradient, dtype=wide).reshape(1)
        else:
            dims = [d for d in range(gradient.dim()) if d != axis]
            norms = norm(gradient, dim=dims, dtype=wide) if dims else gradient.abs()
        self._norms.append(norms)
        self._sizes.append(gradient.numel() // max(1, norms.numel()))
        self._times.append(time if axis is None else None)

    def flush(self) -> Counts | None:
        """Counters of ∂L/∂s in the table `gradients`."""
        if not self._awaited and not self._norms:
            return None
        counters: Counters = {"n_grad": 0}  # no backward pass came by: the loss uses no spikes
        if self._norms:
            counters = self._sums() | self._ends()
        self._clear()
        return Counts({"gradients": counters})

    def _sums(self) -> Counters:
        squares = torch.cat(self._norms).double().square()
        finite = squares.isfinite()
        lengths = [len(n) for n in self._norms]
        if len(set(self._sizes)) == 1:
            n_grad = finite.sum() * self._sizes[0]
        else:
            sizes = squares.new_tensor(
                [s for s, n in zip(self._sizes, lengths, strict=True) for _ in range(n)]
            )
            n_grad = sizes.where(finite, 0).sum()
        return {
            "n_grad": n_grad,
            "sum_sq_grad": squares.where(finite, 0).sum(),
            "n_nonfinite_grad": finite.numel() - finite.sum(),
        }

    def _ends(self) -> Counters:
        """Σg² at the first and at the last time step of the samples."""
        steps = [t for t in self._times if t is not None]
        if steps and max(steps) > 0:
            first = [n[0] for n, t in zip(self._norms, self._times, strict=True) if t == 0]
            end = max(steps)
            last = [n[0] for n, t in zip(self._norms, self._times, strict=True) if t == end]
        else:
            sequences = [n for n in self._norms if len(n) > 1]
            first, last = [n[0] for n in sequences], [n[-1] for n in sequences]
        if not first or not last:
            return {}
        return {
            "sum_sq_grad_first": torch.stack(first).double().square().sum(),
            "sum_sq_grad_last": torch.stack(last).double().square().sum(),
        }
