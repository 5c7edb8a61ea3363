"""What all layers with quantized weights share."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class QuantizedLinear(nn.Linear, ABC):
    """`nn.Linear` that multiplies with quantized weights; `weight` is the latent one.

    The latent weight is what the optimizer moves, in full precision. It is needed while training
    only.
    """

    @abstractmethod
    def quantized_weight(self) -> Tensor:
        """What the layer multiplies with, shape (out, in); its gradient reaches `weight`."""

    def fit_scales(self) -> None:
        """Start scales that learn from the present `weight`; there are none by default."""

    def forward(self, input: Tensor) -> Tensor:
        """Input of shape (*, in), output of shape (*, out)."""
        return nn.functional.linear(input, self.quantized_weight(), self.bias)


def a_tensor(result: object) -> Tensor:
    """What `Function.apply` returned, which is not typed."""
    assert isinstance(result, Tensor)  # noqa: S101
    return result
