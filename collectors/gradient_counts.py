"""The counters of the gradients at one spiking layer: σ′ before, ∂L/∂s during the backward pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spikewatch.metrics.gradients import SG_ACTIVE
from spikewatch.observing import Counters

from .axes import Axes
from .hooks import Hook
from .surrogate import local_derivative


class GradientCounts:
    """Accumulates one phase of one layer between two flushes."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._n_sg = 0
        self._sg: Tensor | None = None  # Σ|σ′|, in support, not finite
        self._carrying: Tensor | None = None
        self._n_grad = 0
        self._grad: Tensor | None = None  # Σg², not finite

    def add_surrogate(self, spikes: Tensor, nodes: Sequence[Any], axes: Axes) -> None:
        """Read σ′ of one forward call from its surrogate nodes.

        Args:
            spikes: The layer's output.
            nodes: The surrogate nodes behind it; several for a loop over time (one for each step)
                or for a ternary spike (one for each threshold, whose derivatives add up).
            axes: Where time and batch are in `spikes`.
        """
        slopes = [g for n in nodes if (g := local_derivative(n)) is not None]
        if not slopes:
            return
        self._n_sg += spikes.numel()
        per_slot = len(slopes) * slopes[0].numel() // max(1, spikes.numel())
        if per_slot > 1 and all(g.shape == spikes.shape for g in slopes):
            slopes = [torch.stack(slopes).sum(0)]
        for slope in slopes:
            self._add_slope(slope.abs(), spikes.shape, axes)

    def _add_slope(self, slope: Tensor, shape: torch.Size, axes: Axes) -> None:
        finite = slope.isfinite()
        active = slope > SG_ACTIVE
        sums = torch.stack(
            [
                slope.where(finite, 0).sum(dtype=torch.float64),
                active.logical_and(finite).sum(dtype=torch.float64),
                finite.logical_not().sum(dtype=torch.float64),
            ]
        )
        self._sg = sums if self._sg is None else self._sg + sums
        over = axes.dims if slope.shape == shape else axes.dims_of_one_step(shape, slope.shape)
        if over is not None:
            carrying = (active.any(dim=tuple(over)) if over else active).flatten()
            self._carrying = carrying if self._carrying is None else self._carrying | carrying

    def watch_backward(self, spikes: Tensor) -> None:
        """Have ∂L/∂s counted when the backward pass reaches `spikes`.

        A hook on the tensor, never a full backward hook of the module: that one breaks programs
        which change the spikes in place.
        """
        if spikes.requires_grad:
            spikes.register_hook(Hook(self._add_gradient))

    def _add_gradient(self, gradient: Tensor) -> None:
        gradient = gradient.detach()
        finite = gradient.isfinite()
        sums = torch.stack(
            [
                gradient.where(finite, 0).double().square().sum(),
                finite.logical_not().sum(dtype=torch.float64),
            ]
        )
        self._n_grad += gradient.numel()
        self._grad = sums if self._grad is None else self._grad + sums

    def flush(self) -> Counters | None:
        """Counters of the table `gradients` since the last flush; None without any."""
        counters: Counters = {}
        if self._sg is not None:
            counters |= {
                "n_sg": self._n_sg - self._sg[2],
                "sum_sg": self._sg[0],
                "n_sg_active": self._sg[1],
                "n_sg_nonfinite": self._sg[2],
            }
        if self._carrying is not None:
            counters |= {
                "n_sg_neurons": self._carrying.numel(),
                "n_carrying": self._carrying.sum(),
            }
        if self._grad is not None:
            counters |= {
                "n_grad": self._n_grad - self._grad[1],
                "sum_sq_grad": self._grad[0],
                "n_nonfinite_grad": self._grad[1],
            }
        self._clear()
        return counters or None
