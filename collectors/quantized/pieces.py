"""Going through all weights of a layer in pieces, in buffers that are used again and again.

Buffers of the size of a piece that come and go are what an allocator cannot put together again: on
glibc a layer of 100 million weights left 370 MB of holes behind, four bytes a weight.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .levels import Levels


# Small enough for the caches of a CPU, large enough for a GPU.
PIECE = {"cpu": 2**20}
_PIECE_ELSEWHERE = 2**24


class Buffer:
    """Memory for one tensor at a time."""

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        self._dtype = dtype
        self._memory: Tensor | None = None

    def like(self, x: Tensor, *, contiguous: bool = False) -> Tensor:
        """An uninitialised tensor of the shape and layout of `x`; the one before it is lost."""
        memory, dtype = self._memory, self._dtype or x.dtype
        if memory is None or memory.numel() < x.numel() or memory.device != x.device:
            memory = self._memory = torch.empty(x.numel(), dtype=dtype, device=x.device)
        if contiguous or x.is_contiguous():
            return memory[: x.numel()].view(x.shape)
        # Dense, with the axes in the order that they have in `x`: else each operation is slow.
        return memory.as_strided(x.shape, torch.empty_like(x, device="meta").stride())


@dataclass(frozen=True)
class Shift:
    """The middle level of weights of which that is not 0 (DLT, SEQ), by what shares its levels.

    Attributes:
        middle: Of each unit, [units].
        reach: From there to its outer levels, [units].
        size: So many neighbours make a unit.
    """

    middle: Tensor
    reach: Tensor
    size: int

    @classmethod
    def of(cls, weight: Tensor, levels: Levels, *, stacked: bool) -> "Shift":
        """The middle levels of a weight, shape (out, *) or, stacked, (n, out, in)."""
        size = weight.numel() if levels.granularity == "tensor" else levels.group
        if levels.granularity == "row":
            inner = tuple(range(2 if stacked else 1, weight.dim()))
            low, high = (f(weight, inner).flatten() for f in (torch.amin, torch.amax))
            size = weight.numel() // low.numel()
        else:
            rows = weight.reshape(-1, size) if levels.group else weight
            low, high = rows.aminmax(dim=1) if levels.group else rows.aminmax()
            low, high = low.reshape(-1), high.reshape(-1)
        return cls((low + high) / 2, (high - low) / 2, size)

    def subtract(self, x: Tensor, first: int, *, buffer: Buffer | None) -> None:
        """Make of weights, in place, what they are beside their middle level.

        Args:
            x: Neighbours, contiguous.
            first: Index of the first one.
            buffer: Where those at the middle are to be exactly 0: memory to work in.
        """
        n = x.numel()
        units = slice(first // self.size, -(-(first + n) // self.size))
        middle, reach = self.middle[units, None], self.reach[units, None]
        rows = x.view(-1, min(self.size, n))
        rows.sub_(middle)
        if buffer is not None:
            far = torch.abs(rows, out=buffer.like(rows))
            rows.mul_(torch.ge(far, 0.5 * reach, out=far))

    def subtract_at(self, x: Tensor, indices: Tensor | None, *, rounds: bool) -> Tensor:
        """The same of single weights, a vector: those of the flat `indices`, or all."""
        if indices is None:
            indices = torch.arange(len(x), device=x.device)
        unit = indices // self.size
        less = x - self.middle[unit]
        return less * (less.abs() >= 0.5 * self.reach[unit]) if rounds else less


def pieces(x: Tensor, shift: Shift | None = None, *, rounds: bool = False) -> Iterator[Tensor]:
    """Some rows after the other, in float32 at least, never a view of a training's own graph.

    Each piece may lie in the memory of the one before it.

    Args:
        x: Weights, shape (out, *).
        shift: Subtracted from them.
        rounds: Whether weights at the middle level are to be exactly 0.
    """
    if x.dim() < 2:
        x = x.reshape(1, -1)
    n = max(1, PIECE.get(x.device.type, _PIECE_ELSEWHERE) * len(x) // max(1, x.numel()))
    small = not x.is_floating_point() or x.dtype.itemsize < 4
    buffer, first = Buffer(torch.float32 if small else None), 0
    work = Buffer() if rounds else None
    for part in x.split(n):
        piece = part
        if shift is not None:
            piece = buffer.like(part, contiguous=True).copy_(part)
            shift.subtract(piece, first, buffer=work)
            first += part.numel()
        elif small:
            piece = buffer.like(part).copy_(part)
        yield piece
