"""What an instrument is given of a layer's weights, and what it gives back."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from spikewatch.observing import Counts

from ..levels import Granularity, Levels
from .level_sums import LevelSums, level_sums, row_deltas
from .sampling import strata, take


if TYPE_CHECKING:
    from .precision import Place


@dataclass(frozen=True)
class Weights:
    """The weights of one layer, as one forward pass used them.

    What several instruments need is worked out once, when the first one asks.

    Attributes:
        quantized: What the layer multiplies with, shape (out, *).
        latent: The full-precision copy that the optimizer moves, of the same shape; `quantized`
            itself where the parameter is quantized.
        granularity: Whether levels are shared by the tensor, a row or a group; None while there
            are none, for instruments that read such weights as well.
        module: The layer.
        phase: `train` or `eval`.
        step: Number of the step.
        detailed: Whether the dear readings are due in it.
        most_tracked: Of a layer with more weights than these, so many are followed.
        place: Where in the network the layer stands.
        levels: What its levels are, where that is known: bits, form, size of a group.
    """

    quantized: Tensor
    latent: Tensor
    granularity: Granularity | None
    module: nn.Module
    phase: str = "train"
    step: int = 0
    detailed: bool = True
    most_tracked: int = 65_536
    place: "Place | None" = None
    levels: Levels | None = None

    @property
    def has_latent(self) -> bool:
        """Whether there is a latent weight to compare with."""
        return self.latent is not self.quantized

    @cached_property
    def indices(self) -> Tensor | None:
        """Flat indices of the weights that are followed; None for all of them."""
        n = self.quantized.numel()
        if n <= self.most_tracked:
            return None
        return strata(n, self.most_tracked, device=self.quantized.device)

    @cached_property
    def sample(self) -> tuple[Tensor, Tensor]:
        """Quantized and latent weights that are followed, each a vector in float32 at least."""
        quantized = _full(take(self.quantized, self.indices))
        latent = _full(take(self.latent, self.indices)) if self.has_latent else quantized
        return quantized, latent

    @cached_property
    def level_sums(self) -> LevelSums:
        """How all weights spread over the levels, row by row."""
        return level_sums(self.quantized)

    @cached_property
    def row_deltas(self) -> Tensor:
        """Threshold Δ of each row, [rows]: its largest |latent weight| that became 0."""
        return row_deltas(self.quantized, self.latent)

    @cached_property
    def deltas(self) -> Tensor:
        """Δ of each weight of `sample`; a 0-d tensor where one Δ holds for all.

        Where levels are shared by groups within a row, the row's largest Δ stands for them.
        """
        if self.granularity == "tensor":
            return self.row_deltas.amax()
        n_rows = self.row_deltas.numel()
        row_size = self.quantized.numel() // n_rows
        if self.indices is None:
            return self.row_deltas.repeat_interleave(row_size)
        return self.row_deltas[self.indices // row_size]


class WeightInstrument:
    """Counts one thing of the weights of one layer, step after step; may remember earlier ones.

    Attributes:
        before_levels: Whether it also reads weights that have no levels (yet).
    """

    before_levels: ClassVar[bool] = False

    def read(self, weights: Weights) -> Counts | None:
        """Counters of this step. Runs without autograd and outside of every function mode."""
        raise NotImplementedError

    def end(self, module: nn.Module, latent: Tensor) -> Counts | None:  # noqa: ARG002
        """What shows only when a detailed training step ends: gradients, and the update.

        Args:
            module: The layer; the optimizer has just stepped.
            latent: Its latent weight now.
        """
        return None


def _full(x: Tensor) -> Tensor:
    return x if x.is_floating_point() and x.dtype.itemsize >= 4 else x.float()
