"""Ternary weights: TWN (Li, Zhang & Liu 2016)."""

from typing import Any

import torch
from torch import Tensor, nn


# Δ = c·E|w|: 0.7 is the paper's compromise between a uniform (0.667) and a Gaussian (0.767)
# weight distribution; later versions of the paper use 0.75. The optimum for Laplacian weights is
# 1.0. Between 0.7 and 0.767 a Gaussian layer loses 0.03 dB.
DELTA_FACTOR = 0.7


def ternarize(weight: Tensor, *, delta_factor: float = DELTA_FACTOR) -> Tensor:
    """The ternary weights α·{−1, 0, +1} nearest to `weight`, with one Δ and one α for all.

    Args:
        weight: Latent weights, any shape.
        delta_factor: c in Δ = c·mean|w|.

    Returns:
        Weights of the same shape and dtype. α = mean |w| over |w| > Δ, which is the least-squares
        scale for that Δ (the mean over *all* weights is BitNet's). All 0 if no weight exceeds Δ.
    """
    magnitude = weight.abs()
    nonzero = magnitude > delta_factor * magnitude.mean()
    alpha = (magnitude * nonzero).sum() / nonzero.sum().clamp(min=1)
    return alpha * weight.sign() * nonzero


class _Ternarize(torch.autograd.Function):
    """`ternarize` forward, the identity backward (straight-through): the zeros learn as well.

    A function of its own: w + (q − w).detach() rounds, which leaves seven levels, not three.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, delta_factor: float) -> Tensor:  # noqa: ARG004
        return ternarize(weight, delta_factor=delta_factor)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return grad_outputs[0], None


class TernaryLinear(nn.Linear):
    """`nn.Linear` that multiplies with ternary weights; `weight` is the latent one.

    Args:
        in_features: Size of the input's last dimension.
        out_features: Size of the output's.
        bias: Whether to add a bias, which stays in full precision.
        delta_factor: c in Δ = c·mean|w|.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        delta_factor: float = DELTA_FACTOR,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.delta_factor = delta_factor

    def quantized_weight(self) -> Tensor:
        """What the layer multiplies with, shape (out, in); its gradient reaches `weight`."""
        quantized = _Ternarize.apply(self.weight, self.delta_factor)
        assert isinstance(quantized, Tensor)  # noqa: S101 - `apply` is not typed
        return quantized

    def forward(self, input: Tensor) -> Tensor:
        """Input of shape (*, in), output of shape (*, out)."""
        return nn.functional.linear(input, self.quantized_weight(), self.bias)
