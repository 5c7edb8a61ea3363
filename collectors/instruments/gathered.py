"""Small tensors that are alike, gathered side by side to be read together."""

import torch
from torch import Tensor


# So many elements stay in the processor's cache.
_MOST_ELEMENTS = 1 << 17
_MOST_CALLS = 64


def is_small(x: Tensor) -> bool:
    """Whether it is worth a copy to read a tensor with others."""
    return 0 < 4 * x.numel() <= _MOST_ELEMENTS


class Gathered:
    """Copies of tensors of one shape on one device, in float32 at least.

    Attributes:
        dims: Which dimensions of the whole are calls, time and batch.
    """

    def __init__(self, like: Tensor, dims: tuple[int, ...]) -> None:
        """Make room for tensors of this kind, whose dimensions of time and batch are given."""
        n = min(_MOST_ELEMENTS // like.numel(), _MOST_CALLS)
        wide = torch.float64 if like.dtype == torch.float64 else torch.float32
        self.dims = (0, *(d + 1 for d in dims))
        self._whole = torch.empty((n, *like.shape), dtype=wide, device=like.device)
        self._slots = self._whole.unbind()  # to index it costs as much as to copy into it
        self._n = 0

    def fits(self, x: Tensor) -> bool:
        """Whether a tensor is of this kind."""
        slot = self._slots[0]
        return slot.shape == x.shape and slot.device == x.device

    def add(self, x: Tensor) -> bool:
        """Copy one; returns whether there is no room for another."""
        self._slots[self._n].copy_(x)
        self._n += 1
        return self._n == len(self._slots)

    def take(self) -> Tensor | None:
        """All since the last call, [calls, *shape], until the next one is added; None: none."""
        n, self._n = self._n, 0
        return self._whole[:n] if n else None
