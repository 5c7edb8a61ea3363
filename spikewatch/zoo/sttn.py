"""Soft threshold ternary networks (Xu et al., IJCAI 2020): a ternary kernel as two binary ones.

T = α(B₁ + B₂) with B₁, B₂ ∈ {−1, +1}: 0 where they disagree. There is no threshold that anyone
sets, and nothing probabilistic: which weights are zero follows from two latent weights that learn.
While training both kernels run side by side on the same input; to run the network they are added.
"""

from typing import Any

import torch
from torch import Tensor, nn


class Sign(torch.autograd.Function):
    """sign(w), with sign(0) = +1; straight-through where |w| ≤ 1."""

    @staticmethod
    def forward(ctx: Any, latent: Tensor) -> Tensor:
        """Values in {−1, +1}."""
        ctx.save_for_backward(latent)
        return torch.where(latent >= 0, 1.0, -1.0).to(latent.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        """Gradient of the latent weight."""
        (latent,) = ctx.saved_tensors
        return grad_outputs[0] * (latent.abs() <= 1)


class BinaryLinear(nn.Linear):
    """`nn.Linear` with weights ±α; one kernel of a pair."""

    def forward(self, input: Tensor, alpha: Tensor) -> Tensor:  # ty: ignore[incompatible-method-override]
        """Input of shape (*, in) and α of shape (out, 1); output of shape (*, out)."""
        return nn.functional.linear(input, alpha * Sign.apply(self.weight), self.bias)


class STTNLinear(nn.Module):
    """A linear layer with ternary weights {−2α, 0, +2α}, made of two binary ones.

    The pair shares α, the mean |latent weight| of both, for each output channel; or the sum would
    have more levels than three. At the start half of the weights are zero.

    Args:
        in_features: Size of the input's last dimension.
        out_features: Size of the output's.
        bias: Whether to add a bias, which stays in full precision.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.linear_1 = BinaryLinear(in_features, out_features, bias=bias)
        self.linear_2 = BinaryLinear(in_features, out_features, bias=False)

    def alpha(self) -> Tensor:
        """α of each output channel, shape (out, 1); its gradient reaches both latent weights."""
        both = torch.cat([self.linear_1.weight, self.linear_2.weight], dim=1)
        return both.abs().mean(1, keepdim=True)

    def quantized_weight(self) -> Tensor:
        """The one ternary kernel that gives the same output, shape (out, in)."""
        signs = [torch.where(k.weight >= 0, 1.0, -1.0) for k in (self.linear_1, self.linear_2)]
        return self.alpha() * (signs[0] + signs[1])

    def forward(self, input: Tensor) -> Tensor:
        """Input of shape (*, in), output of shape (*, out)."""
        alpha = self.alpha()
        return self.linear_1(input, alpha) + self.linear_2(input, alpha)
