"""Trained ternary quantization: weights {−W_n, 0, +W_p} whose two scales learn.

Zhu, Han, Mao & Dally, ICLR 2017 (https://openreview.net/pdf?id=S1_pAu9xl).
"""

from typing import Any

import torch
from torch import Tensor, nn

from .quantized_linear import QuantizedLinear, a_tensor


DELTA_SHARE = 0.05


class TernarizeTrained(torch.autograd.Function):
    """w = W_p where w̃ > Δ, −W_n where w̃ < −Δ, else 0.

    ∂L/∂W_p = Σ g over the positive weights; ∂L/∂W_n = −Σ g over the negative ones: the minus comes
    from w = −W_n. The paper's equation leaves it out, and so does code that follows it, in which
    W_n climbs the loss.

    ∂L/∂w̃ = g·W_p, g or g·W_n, by the region of w̃. Both plain comparisons (no gradient at all) and
    a plain straight-through estimator (g everywhere) differ from that.
    """

    @staticmethod
    def forward(ctx: Any, latent: Tensor, w_p: Tensor, w_n: Tensor, delta: Tensor) -> Tensor:
        """Ternary weights, of the shape of `latent`; W_p, W_n and Δ are scalars."""
        positive, negative = latent > delta, latent < -delta
        ctx.save_for_backward(positive, negative, w_p, w_n)
        return w_p * positive - w_n * negative

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of w̃, W_p and W_n."""
        positive, negative, w_p, w_n = ctx.saved_tensors
        g = grad_outputs[0]
        scale = torch.where(positive, w_p, torch.where(negative, w_n, 1.0))
        return g * scale, (g * positive).sum(), -(g * negative).sum(), None


class TTQLinear(QuantizedLinear):
    """`nn.Linear` with trained ternary weights; `weight` is the latent one, w̃.

    The paper's gain is 3 % over earlier ternary networks and 0.3 % over full precision (AlexNet);
    "5 % over TWN" is not in it. Its threshold is a share of the largest weight, not of the mean.
    Nothing keeps W_p and W_n positive: a scale of 0 or below means that their learning rate is too
    high.

    Args:
        in_features: Size of the input's last dimension.
        out_features: Size of the output's.
        bias: Whether to add a bias, which stays in full precision.
        delta_share: t in Δ = t·max|w̃|.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        delta_share: float = DELTA_SHARE,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.delta_share = delta_share
        self.w_p = nn.Parameter(torch.ones(()))
        self.w_n = nn.Parameter(torch.ones(()))
        self.fit_scales()

    @torch.no_grad()
    def fit_scales(self) -> None:
        """Set W_p and W_n to the mean of the latent weights that they stand for."""
        delta = self.delta_share * self.weight.abs().max()
        for scale, side in ((self.w_p, self.weight), (self.w_n, -self.weight)):
            beyond = side > delta
            scale.copy_((side * beyond).sum() / beyond.sum().clamp(min=1))

    def quantized_weight(self) -> Tensor:
        """What the layer multiplies with; its gradient reaches `weight`, `w_p` and `w_n`."""
        delta = self.delta_share * self.weight.detach().abs().max()
        return a_tensor(TernarizeTrained.apply(self.weight, self.w_p, self.w_n, delta))
