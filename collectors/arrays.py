"""What is computed with when a step ends: NumPy on the host, tensors on other devices.

An operation on some hundred numbers costs 3 to 5 µs in torch and 1 in NumPy, and each layer takes a
dozen of them in each observed step. What is written here, and with operators and methods that both
know, is written once for both. On a device nothing waits: what would be a number is a 0-d tensor.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor


# A NumPy array, or a tensor on another device than the host. Their operators share no type.
Array = Any


def on_host(x: Tensor) -> bool:
    """Whether its numbers can be looked at without waiting for a device."""
    return x.is_cpu


def as_array(x: Tensor) -> Array:
    """`x` itself, which a NumPy array shares its memory with; of one dimension at least."""
    x = x.detach() if x.dim() else x.detach().reshape(1)
    return x.numpy() if on_host(x) else x


def zeros_like(x: Array) -> Array:
    """Whole numbers, int64, for each element of `x`."""
    numpy = isinstance(x, np.ndarray)
    return np.zeros(x.shape, np.int64) if numpy else torch.zeros_like(x, dtype=torch.int64)


def put(x: Array, flags: Array, value: int) -> None:
    """Set the flagged elements of `x`."""
    if isinstance(x, np.ndarray):
        np.putmask(x, flags, value)
    else:
        x.masked_fill_(flags, value)


def count(flags: Array) -> Any:
    """How many are true: an `int`, or an int64 tensor, 0-d."""
    return np.count_nonzero(flags) if isinstance(flags, np.ndarray) else flags.sum()


def total(x: Tensor) -> Any:
    """Sum in double precision: a `float`, or a float64 tensor, 0-d."""
    whole = x.sum(dtype=torch.float64)
    return whole.item() if on_host(x) else whole


def pack_bits(flags: Array) -> Any:
    """Pack booleans into bytes, first flag in the highest bit, the rest of the last byte 0.

    Returns:
        `bytes`, or a uint8 tensor.
    """
    if isinstance(flags, np.ndarray):
        return np.packbits(flags).tobytes()
    padded = torch.nn.functional.pad(flags.flatten().to(torch.uint8), (0, -flags.numel() % 8))
    weights = 2 ** torch.arange(7, -1, -1, device=flags.device, dtype=torch.uint8)
    return (padded.view(-1, 8) * weights).sum(1, dtype=torch.uint8)


class Readings:
    """Numbers that are read one by one, and handed over together: at once where that is free."""

    def __init__(self) -> None:
        self._numbers: list[float] = []
        self._parts: list[Tensor] = []

    def __len__(self) -> int:
        """Of how many readings nothing is known yet, as their device is far."""
        return len(self._parts)

    def add(self, *readings: Tensor | float) -> None:
        """Add numbers, scalars, or vectors."""
        for x in readings:
            if not isinstance(x, Tensor):
                self._numbers.append(x)
            elif not on_host(x):
                self._parts.append(x.detach().reshape(-1))
            elif x.dim():
                self._numbers += x.flatten().tolist()
            else:
                self._numbers.append(x.item())

    def pack(self) -> None:
        """Make one tensor of many."""
        if len(self._parts) > 1:
            self._parts = [torch.cat(self._parts)]

    def take(self) -> Tensor | list[float]:
        """All since the last call, in their order."""
        self.pack()
        numbers, parts = self._numbers, self._parts
        self._numbers, self._parts = [], []
        return parts[0] if parts else numbers
