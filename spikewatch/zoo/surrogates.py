"""Surrogate derivatives σ′ of a spike s = Θ(u − θ), as functions of the distance d = u − θ.

A surrogate is judged by its peak (the gradient right at the threshold), its area (1 keeps the mean
gradient of uniformly spread potentials) and its full width at half maximum, outside of which a
neuron hardly learns. The names and parameters are those of the literature; the peaks and areas
differ between them, so exchanging one for another changes the size of every gradient.

A gradient that vanishes while the neurons fire need not be the surrogate's fault: the upstream
gradient may be zero, or cut off by `detach`. Only σ′ itself tells.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Surrogate(Protocol):
    """Gives σ′ for a distance to the threshold."""

    @property
    def peak(self) -> float:
        """σ′(0)."""

    @property
    def area(self) -> float:
        """∫σ′(d) dd."""

    @property
    def fwhm(self) -> float:
        """Width in d over which σ′ is at least half of its peak."""

    def derivative(self, distance: Tensor) -> Tensor:
        """σ′ at each element of `distance`; same shape and dtype."""


@dataclass(frozen=True)
class Rectangle:
    """σ′ = 1/w where |d| < w/2, else 0 (straight-through in a window; Wu et al. 2018).

    Often written with height 1: then the area is w, and the gradient shrinks with the window.
    """

    width: float = 1.0

    @property
    def peak(self) -> float:
        """1/w."""
        return 1 / self.width

    @property
    def area(self) -> float:
        """1, whatever the width."""
        return 1.0

    @property
    def fwhm(self) -> float:
        """Equal to w."""
        return self.width

    def derivative(self, distance: Tensor) -> Tensor:
        """σ′ at each element of `distance`."""
        return (distance.abs() < self.width / 2).to(distance.dtype) / self.width


@dataclass(frozen=True)
class Triangle:
    """σ′ = γ·max(0, 1 − |d|/w) (Bellec et al. 2018, with γ = 0.3 and w = θ).

    The area is γ·w: only γ = 1/w gives 1.
    """

    width: float = 1.0
    gamma: float = 1.0

    @property
    def peak(self) -> float:
        """γ."""
        return self.gamma

    @property
    def area(self) -> float:
        """γ·w."""
        return self.gamma * self.width

    @property
    def fwhm(self) -> float:
        """Equal to w."""
        return self.width

    def derivative(self, distance: Tensor) -> Tensor:
        """σ′ at each element of `distance`."""
        return self.gamma * (1 - distance.abs() / self.width).clamp(min=0)


@dataclass(frozen=True)
class SuperSpike:
    """σ′ = 1/(1 + k|d|)² (Zenke & Ganguli 2018).

    Its support is infinite, but the tail does not revive dead neurons: at |d| = 5, σ′ is 3.8e-4
    with k = 10 and 4e-6 with k = 100, and half of its peak is left at |d| = 0.04 and 0.004. The
    area is 2/k, so at k = 10 the gradient is attenuated to a fifth.
    """

    k: float = 10.0

    @property
    def peak(self) -> float:
        """1."""
        return 1.0

    @property
    def area(self) -> float:
        """2/k."""
        return 2 / self.k

    @property
    def fwhm(self) -> float:
        """2(√2 − 1)/k."""
        return 2 * (math.sqrt(2) - 1) / self.k

    def derivative(self, distance: Tensor) -> Tensor:
        """σ′ at each element of `distance`."""
        return 1 / (1 + self.k * distance.abs()) ** 2


@dataclass(frozen=True)
class ATan:
    """σ′ = α / (2(1 + (π/2·α·d)²)) (Fang et al. 2021). The area is 1 for every α.

    Its tail falls with 1/d², as SuperSpike's does. That it suits Transformers better than the
    others is often said, and has not been shown.
    """

    alpha: float = 2.0

    @property
    def peak(self) -> float:
        """α/2."""
        return self.alpha / 2

    @property
    def area(self) -> float:
        """1."""
        return 1.0

    @property
    def fwhm(self) -> float:
        """4/(πα)."""
        return 4 / (math.pi * self.alpha)

    def derivative(self, distance: Tensor) -> Tensor:
        """σ′ at each element of `distance`."""
        return self.alpha / 2 / (1 + (math.pi / 2 * self.alpha * distance) ** 2)


class Spike(torch.autograd.Function):
    """Θ(d) forward, σ′(d) backward. Keeps the dtype: bfloat16 in, bfloat16 out.

    The form in circulation fails for a threshold that is a plain number (a TypeError of
    `save_for_backward`), returns no gradient for one that is a parameter, makes float32 of
    bfloat16, and fixes k = 10 in the backward pass; here θ is part of d, and the surrogate is an
    argument.
    """

    @staticmethod
    def forward(
        ctx: Any,
        distance: Tensor,
        surrogate: Surrogate,
        trained: Tensor | None,  # noqa: ARG004 - it is an input so that it gets a gradient
    ) -> Tensor:
        """1 where d > 0, else 0."""
        ctx.save_for_backward(distance)
        ctx.surrogate = surrogate
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, Tensor | None]:
        """∂L/∂d = ∂L/∂s · σ′(d), and for a trained steepness κ, ∂L/∂κ = Σ ∂L/∂s · ∂σ/∂κ."""
        (distance,) = ctx.saved_tensors
        grad_trained = None
        if ctx.needs_input_grad[2]:
            grad_trained = (grad_outputs[0] * ctx.surrogate.trained_slope(distance)).sum()
        return grad_outputs[0] * ctx.surrogate.derivative(distance), None, grad_trained


def spike(distance: Tensor, surrogate: Surrogate) -> Tensor:
    """Fire where the membrane potential is above the threshold.

    Args:
        distance: d = u − θ, any shape. A trainable θ gets its gradient −σ′ through this
            difference.
        surrogate: What stands in for the derivative of Θ. One that learns has `trained`, its
            parameter, and `trained_slope(distance)`, ∂σ/∂(that parameter).

    Returns:
        Spikes in {0, 1}, of the same shape and dtype.
    """
    spikes = Spike.apply(distance, surrogate, getattr(surrogate, "trained", None))
    assert isinstance(spikes, Tensor)  # noqa: S101 - `apply` is not typed
    return spikes
