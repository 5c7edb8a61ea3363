"""The counters of the gradients at one spiking layer: σ′ before, ∂L/∂s during the backward pass."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from spikewatch.metrics.gradients import SG_ACTIVE
from spikewatch.observing import Counters

from .axes import Axes
from .hooks import Hook
from .sums import exact_sum
from .surrogate import local_derivative


# σ′ of the time steps of a loop is reduced together, but never more elements than this at once:
# observing must not be what runs out of memory.
_MAX_TOGETHER = 1 << 20


class GradientCounts:
    """Accumulates one phase of one layer between two flushes."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._sg: Tensor | None = None  # Σ|σ′|, slots, in support, reads that were not finite
        self._carrying: Tensor | None = None
        self._grad: Tensor | None = None  # Σg², elements, gradients that were not finite
        self._awaited = False

    def add_surrogate(self, spikes: Tensor, nodes: Sequence[Any], axes: Axes) -> None:
        """Read σ′ of one forward call from its surrogate nodes.

        Args:
            spikes: The layer's output.
            nodes: The surrogate nodes behind it; several for a loop over time (one for each step)
                or for a ternary spike (one for each threshold, whose derivatives add up).
            axes: Where time and batch are in `spikes`.
        """
        for slope in _slopes(nodes, spikes):
            self._add_slope(slope.abs(), spikes.shape, axes)

    def _add_slope(self, slope: Tensor, shape: torch.Size, axes: Axes) -> None:
        """Count σ′ of shape `shape`, or [steps, *shape without time]."""
        active = slope > SG_ACTIVE
        over = list(axes.dims) if slope.shape == shape else None
        if over is None and (step := axes.dims_of_one_step(shape, slope.shape[1:])) is not None:
            over = [0, *(d + 1 for d in step)]
        if over is None:
            n_active = active.sum()
        else:
            per_neuron = active.sum(over) if over else active.long()
            n_active, carrying = per_neuron.sum(), per_neuron.ne(0).flatten()
            self._carrying = carrying if self._carrying is None else self._carrying | carrying
        self._sg = _add(self._sg, exact_sum(slope), slope.numel(), n_active)

    def watch_backward(self, spikes: Tensor) -> None:
        """Have ∂L/∂s counted when the backward pass reaches `spikes`.

        A hook on the tensor, never a full backward hook of the module: that one breaks programs
        which change the spikes in place.
        """
        if spikes.requires_grad:
            spikes.register_hook(Hook(self._add_gradient))
            self._awaited = True

    def _add_gradient(self, gradient: Tensor) -> None:
        norm = torch.linalg.vector_norm(gradient.detach(), dtype=torch.float32).double()
        self._grad = _add(self._grad, norm.square(), gradient.numel())

    def flush(self) -> Counters | None:
        """Counters of the table `gradients` since the last flush; None without any."""
        counters: Counters = {}
        if self._sg is not None:
            names = ("sum_sg", "n_sg", "n_sg_active", "n_sg_nonfinite")
            counters |= zip(names, self._sg, strict=True)
        if self._carrying is not None:
            counters |= {
                "n_sg_neurons": self._carrying.numel(),
                "n_carrying": self._carrying.sum(),
            }
        if self._grad is not None:
            names = ("sum_sq_grad", "n_grad", "n_nonfinite_grad")
            counters |= zip(names, self._grad, strict=True)
        elif self._awaited:
            counters["n_grad"] = 0  # no backward pass came by: the spikes are not used for the loss
        self._clear()
        return counters or None


def _add(so_far: Tensor | None, total: Tensor, *counts: Tensor | int) -> Tensor:
    """Add [total, counts …, 0] to the sums; [0 …, 1] if `total` is not finite.

    One non-finite element makes the total non-finite, which is far cheaper to see than each
    element.
    """
    row = torch.stack([total, *(torch.as_tensor(c, device=total.device).double() for c in counts)])
    finite = total.isfinite()
    row = torch.cat([row.where(finite, 0), finite.logical_not().double().reshape(1)])
    return row if so_far is None else so_far + row


def _slopes(nodes: Sequence[Any], spikes: Tensor) -> Iterator[Tensor]:
    """σ′ in as few tensors as memory allows: of the whole output, or stacks of single steps."""
    slopes: list[Tensor] = []
    for node in nodes:
        slope = local_derivative(node)
        if slope is None:
            return
        if slopes and (len(slopes) + 1) * slope.numel() > _MAX_TOGETHER:
            yield torch.stack(slopes)
            slopes = []
        slopes.append(slope)
    if slopes and slopes[0].shape == spikes.shape:
        yield sum(slopes[1:], start=slopes[0])  # thresholds of one spike: their slopes add up
    elif slopes:
        yield torch.stack(slopes)
