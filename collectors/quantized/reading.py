"""What an instrument is given of a layer's weights, and what it gives back."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar

from torch import Tensor, nn

from spikewatch.observing import Counts

from .level_sums import LevelSums, level_sums, unit_deltas
from .levels import Granularity, Levels
from .pieces import Buffer, Shift, pieces
from .place import Place
from .sampling import strata, take


# A number takes four bytes, and some of them are held for a step: more are not needed for a median.
MOST_NUMBERS = 65_536
# An index takes eight bytes: those of many weights that are followed are not all there at once.
_FOLLOWED_AT_ONCE = 2**17


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
        stacked: Whether the weights are a stack of matrices, (n, out, in), such as experts: each
            has inputs and outputs of its own.
        shift: What quantized and latent weights are counted beside, where that is not 0.
    """

    quantized: Tensor
    latent: Tensor
    granularity: Granularity | None
    module: nn.Module
    phase: str = "train"
    step: int = 0
    detailed: bool = True
    most_tracked: int = 65_536
    place: Place | None = None
    levels: Levels | None = None
    stacked: bool = False
    shift: Shift | None = None

    @property
    def has_latent(self) -> bool:
        """Whether there is a latent weight to compare with."""
        return self.latent is not self.quantized

    @property
    def n_followed(self) -> int:
        """How many weights are followed, at a byte each."""
        return min(self.quantized.numel(), self.most_tracked)

    def followed(self) -> Iterator[Tensor]:
        """The quantized weights that are followed: vectors, each lost when the next one comes."""
        n, n_all, device = self.n_followed, self.quantized.numel(), self.quantized.device
        if n == n_all:
            buffer = Buffer()
            for x in pieces(self.quantized, self.shift, rounds=True):
                straight = x.is_contiguous()
                yield (x if straight else buffer.like(x, contiguous=True).copy_(x)).view(-1)
            return
        for begin in range(0, n, _FOLLOWED_AT_ONCE):
            end = min(n, begin + _FOLLOWED_AT_ONCE)
            some = strata(n_all, n, device=device, begin=begin, end=end)
            x = take(self.quantized, some)
            yield x if self.shift is None else self.shift.subtract_at(x, some, rounds=True)

    @cached_property
    def few(self) -> Tensor | None:
        """Flat indices of those that are read as numbers, at most `MOST_NUMBERS`; None for all."""
        n, most = self.quantized.numel(), min(self.most_tracked, MOST_NUMBERS)
        return None if n <= most else strata(n, most, device=self.quantized.device)

    @cached_property
    def sample(self) -> tuple[Tensor, Tensor]:
        """Quantized and latent weights of `few`, each a vector in float32 at least."""
        quantized = _full(take(self.quantized, self.few))
        latent = _full(take(self.latent, self.few)) if self.has_latent else quantized
        if self.shift is None:
            return quantized, latent
        moved = partial(self.shift.subtract_at, indices=self.few)
        return moved(quantized, rounds=True), moved(latent, rounds=not self.has_latent)

    @cached_property
    def level_sums(self) -> LevelSums:
        """How all weights spread over the levels, row by row."""
        return level_sums(self.quantized, stacked=self.stacked, shift=self.shift)

    @cached_property
    def unit_deltas(self) -> Tensor:
        """Threshold Δ of all that shares a scale (rows, groups): its largest |w̃| that became 0."""
        return unit_deltas(self.quantized, self.latent, self._size_of_unit, self.shift)

    @cached_property
    def deltas(self) -> Tensor:
        """Δ of each weight of `sample`; a 0-d tensor where one Δ holds for all."""
        if self.granularity == "tensor":
            return self.unit_deltas.amax()
        if self.few is None:
            return self.unit_deltas.repeat_interleave(self._size_of_unit)
        return self.unit_deltas[self.few // self._size_of_unit]

    @property
    def _size_of_unit(self) -> int:
        """How many neighbours share a scale: a row, also where it is the tensor; or a group."""
        group = self.levels.group if self.levels is not None else 0
        axes = 2 if self.stacked else 1 if self.quantized.dim() > 1 else 0
        rows = self.quantized.shape[:axes].numel()
        return group or self.quantized.numel() // rows


class WeightInstrument(ABC):
    """Counts one thing of the weights of one layer, step after step; may remember earlier ones.

    Attributes:
        before_levels: Whether it also reads weights that are on their way to levels.
        after_levels: Whether it also reads weights that have none, or others, by now.
    """

    before_levels: ClassVar[bool] = False
    after_levels: ClassVar[bool] = False

    @abstractmethod
    def read(self, weights: Weights) -> Counts | None:
        """Counters of this step. Runs without autograd and outside of every function mode."""

    def gradient(  # noqa: B027 - most do not listen
        self, module: nn.Module, quantized: Tensor, gradient: Tensor
    ) -> None:
        """Read ∂L/∂w_t of one forward pass, in the backward pass of a detailed training step.

        Args:
            module: The layer.
            quantized: The quantized weight, shape (out, *).
            gradient: Of the same shape.
        """

    def end(self, module: nn.Module, latent: Tensor, gradient: Tensor | None) -> Counts | None:  # noqa: ARG002
        """What shows only when a detailed training step ends: gradients, and the update.

        Args:
            module: The layer; the optimizer has just stepped.
            latent: Its latent weight now.
            gradient: ∂L/∂w̃, laid out like it; None where there is none.
        """
        return None


def _full(x: Tensor) -> Tensor:
    return x if x.is_floating_point() and x.dtype.itemsize >= 4 else x.float()
