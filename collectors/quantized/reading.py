"""What an instrument is given of a layer's weights, and what it gives back."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from spikewatch.observing import Counts

from ..levels import Granularity


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of one layer, as one forward pass used them.

    Attributes:
        quantized: What the layer multiplies with, shape (out, *).
        latent: The full-precision copy that the optimizer moves, of the same shape; `quantized`
            itself where the parameter is quantized.
        granularity: Whether levels are shared by the tensor, a row or a group.
    """

    quantized: Tensor
    latent: Tensor
    granularity: Granularity

    @property
    def has_latent(self) -> bool:
        """Whether there is a latent weight to compare with."""
        return self.latent is not self.quantized


class WeightInstrument(Protocol):
    """Counts one thing of the weights of one layer, step after step; may remember earlier ones."""

    def __init__(self) -> None: ...

    def read(self, weights: Weights) -> Counts:
        """Counters of this step. Runs without autograd and outside of every function mode."""
