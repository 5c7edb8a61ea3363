"""Learned step size quantization (Esser et al., ICLR 2020).

What learns is the step s. A threshold follows from it (w rounds to 0 where |w| < s/2) and is no
parameter of its own: a parameter Δ that is only compared with gets no gradient, and never learns.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from .quantized_linear import QuantizedLinear, a_tensor


class RoundToStep(torch.autograd.Function):
    """w = s·round(clamp(v, low, high)) with v = w̃/s, and its gradients.

        ∂w/∂w̃ = 1 where low < v < high, else 0
        ∂w/∂s  = round(v) − v there, low below it and high above it

    The gradient of s is scaled by 1/√(N·high), N the number of weights: without it s, which all
    weights pull at, would take steps that are far larger, relative to its size, than theirs.
    """

    @staticmethod
    def forward(ctx: Any, latent: Tensor, step: Tensor, low: int, high: int) -> Tensor:
        """Quantized weights, of the shape of `latent`; `step` is a scalar."""
        ctx.save_for_backward(latent, step)
        ctx.low, ctx.high = low, high
        return (latent / step).clamp(low, high).round() * step

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Gradients of w̃ and s."""
        latent, step = ctx.saved_tensors
        low, high, g = ctx.low, ctx.high, grad_outputs[0]
        v = latent / step
        inside = (v > low) & (v < high)
        slope = torch.where(inside, v.round() - v, v.clamp(low, high))
        grad_scale = 1 / math.sqrt(latent.numel() * high)
        return g * inside, (g * slope).sum() * grad_scale, None, None


class LSQLinear(QuantizedLinear):
    """`nn.Linear` with weights {−s, 0, +s} whose step s learns; `weight` is the latent one.

    Args:
        in_features: Size of the input's last dimension.
        out_features: Size of the output's.
        bias: Whether to add a bias, which stays in full precision.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.step = nn.Parameter(torch.ones(()))
        self.fit_scales()

    @torch.no_grad()
    def fit_scales(self) -> None:
        """Set s to 2·E|w̃|/√high, with high = 1: the paper's start."""
        self.step.copy_(2 * self.weight.abs().mean())

    def quantized_weight(self) -> Tensor:
        """What the layer multiplies with; its gradient reaches `weight` and `step`."""
        return a_tensor(RoundToStep.apply(self.weight, self.step, -1, 1))
