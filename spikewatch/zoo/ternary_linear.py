"""Ternary weights with a threshold from statistics: TWN, and by channel as in TerViT."""

from typing import Any, Literal

import torch
from torch import Tensor

from .quantized_linear import QuantizedLinear, a_tensor


# Δ = c·E|w|: 0.7 is the paper's compromise between a uniform (0.667) and a Gaussian (0.767)
# weight distribution; later versions of the paper use 0.75. With heavier tails the optimum is
# larger: 0.91 for Student's t with 4 degrees of freedom, 1.0 for Laplacian weights. 0.7 loses
# 0.03 dB for Gaussian, 0.3 dB for Laplacian ones.
DELTA_FACTOR = 0.7
EIGHT_BIT_LEVELS = 127


def ternarize(
    weight: Tensor, *, delta_factor: float = DELTA_FACTOR, by_row: bool = False
) -> Tensor:
    """The ternary weights α·{−1, 0, +1} nearest to `weight`.

    Args:
        weight: Latent weights, any shape.
        delta_factor: c in Δ = c·mean|w|.
        by_row: A Δ and an α for each weight[i], instead of one of each for all.

    Returns:
        Weights of the same shape and dtype. α = mean |w| over |w| > Δ, which is the least-squares
        scale for that Δ (the mean over *all* weights is BitNet's). All 0 if no weight exceeds Δ.
    """
    rows = weight.flatten(1) if by_row else weight.reshape(1, -1)
    magnitude = rows.abs()
    nonzero = magnitude > delta_factor * magnitude.mean(1, keepdim=True)
    n_nonzero = nonzero.sum(1, keepdim=True).clamp(min=1)
    alpha = (magnitude * nonzero).sum(1, keepdim=True) / n_nonzero
    return (alpha * rows.sign() * nonzero).reshape(weight.shape)


def round_to_8_bit(weight: Tensor) -> Tensor:
    """Weights on the 255 levels −127…127 of s = max|w|/127, with an s for each weight[i]."""
    rows = weight.flatten(1)
    step = rows.abs().amax(1, keepdim=True) / EIGHT_BIT_LEVELS
    # A row of zeros has a step of 0, and stays one.
    return ((rows / step.where(step > 0, 1)).round() * step).reshape(weight.shape)


class Ternarize(torch.autograd.Function):
    """`ternarize` forward, the identity backward (straight-through): the zeros learn as well.

    A function of its own: w + (q − w).detach() rounds, which leaves seven levels, not three.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, delta_factor: float, by_row: bool) -> Tensor:  # noqa: ARG004
        """Ternary weights of the shape of `weight`."""
        return ternarize(weight, delta_factor=delta_factor, by_row=by_row)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:  # noqa: ARG004
        """The gradient as it comes."""
        return grad_outputs[0], None, None


class RoundTo8Bit(torch.autograd.Function):
    """`round_to_8_bit` forward, the identity backward."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:  # noqa: ARG004
        """8-bit weights of the shape of `weight`."""
        return round_to_8_bit(weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:  # noqa: ARG004
        """The gradient as it comes."""
        return grad_outputs[0]


class EightBitLinear(QuantizedLinear):
    """`nn.Linear` with 8-bit weights, a scale for each output: for first and last layers."""

    def quantized_weight(self) -> Tensor:
        """What the layer multiplies with, shape (out, in); its gradient reaches `weight`."""
        return a_tensor(RoundTo8Bit.apply(self.weight))


class TernaryLinear(QuantizedLinear):
    """TWN: one Δ and one α for the whole layer (Li, Zhang & Liu 2016).

    Δ = 0.7·E|w| is not the optimum for Gaussian weights, as often said, but a compromise; see
    `DELTA_FACTOR`. It assumes that weights are symmetric about 0, which they are whatever the
    activation function.

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
        return a_tensor(Ternarize.apply(self.weight, self.delta_factor, False))


class ChannelTernaryLinear(TernaryLinear):
    """TerViT: ternary *weights* with a Δ and an α for each output channel (Xu et al. 2022).

    With one Δ for the layer, a few channels with large weights raise it above all weights of the
    quiet ones, which then are zero. TerViT trains in two stages, with 8-bit weights first and
    ternary ones after. The snippet that circulates under this name ternarises activations. Of the
    accuracies quoted for it, the abstract has one: above 79 % with Swin-S, at 13.1 MB.

    A scale of 32 bits a channel adds 1.6 % to 2-bit weights at 1024 inputs, and 12.5 % at 128.
    """

    stage: Literal["8-bit", "ternary"] = "ternary"

    def advance(self, progress: float, *, ternary_from: float = 0.3) -> None:
        """Choose the stage for the share `progress`, 0 to 1, of the training that has passed."""
        self.stage = "ternary" if progress >= ternary_from else "8-bit"

    def quantized_weight(self) -> Tensor:
        """What the layer multiplies with, shape (out, in); its gradient reaches `weight`."""
        if self.stage == "8-bit":
            return a_tensor(RoundTo8Bit.apply(self.weight))
        return a_tensor(Ternarize.apply(self.weight, self.delta_factor, True))

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{super().extra_repr()}, stage={self.stage!r}"
