"""What is computed with when a step ends: NumPy on the host, tensors on other devices.

An operation on some hundred numbers costs 3 to 5 µs in torch and 1 in NumPy, and each layer takes a
dozen of them in each observed step. What is written here, and with operators and methods that both
know, is written once for both. On a device nothing waits: what would be a number is a 0-d tensor.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor


# A NumPy array, or a tensor on another device than the host. Their operators share no type.
Array = Any
_NUMPYS = (torch.float32, torch.float64)


def on_host(x: Tensor) -> bool:
    """Whether its numbers can be looked at without waiting for a device."""
    return x.is_cpu


def as_array(x: Tensor) -> Array:
    """`x` itself, which a NumPy array shares its memory with; of one dimension at least."""
    x = x.detach() if x.dim() else x.detach().reshape(1)
    return x.numpy() if on_host(x) else x


def as_seen(x: Tensor) -> Array:
    """A user's tensor as NumPy sees it, for a moment; itself where NumPy does not see it."""
    seen = _seen(x)
    return x if seen is None else seen


def squared(x: Array) -> float:
    """Σx² of what is on the host, float32 or float64.

    On one core: torch takes several from some 10 000 elements on, which is hardly faster, and where
    another thread is at work they wait for one another for milliseconds.
    """
    flat = x.reshape(-1)
    if isinstance(x, Tensor):
        return torch.dot(flat, flat).item()
    with np.errstate(all="ignore"):
        return float(np.dot(flat, flat))


def total_over(x: Array, dims: tuple[int, ...]) -> Array:
    """Σ over some dimensions, in a memory of its own; over leading ones on one core as well."""
    if not dims:
        return as_array(x.clone()) if isinstance(x, Tensor) else x.copy()
    if isinstance(x, Tensor):
        return as_array(x.sum(dims))
    if dims != tuple(range(len(dims))):
        return as_array(torch.from_numpy(x).sum(dims))
    shape = x.shape[len(dims) :]
    rows = x.reshape(-1, math.prod(shape))
    with np.errstate(all="ignore"):  # spikes may be infinite, which is told elsewhere
        return np.dot(_ones(len(rows), x.dtype), rows).reshape(shape)


@lru_cache(maxsize=16)
def _ones(n: int, dtype: np.dtype) -> np.ndarray:
    return np.ones(n, dtype)


def total(x: Array, *, wide: bool) -> Any:
    """Σx: a `float`, or a 0-d tensor; `wide`: added up in float64."""
    if isinstance(x, np.ndarray):
        with np.errstate(all="ignore"):
            return float(x.sum(dtype=np.float64 if wide else None))
    return x.sum(dtype=torch.float64 if wide else None)


def norms(x: Tensor, axis: int) -> Tensor:
    """The 2-norm of what is at each index of an axis; float32 at least. On one core as well.

    At first over what lies together in memory, which is several times as fast as over all at once.
    """
    before, after = tuple(range(axis)), tuple(range(axis + 1, x.dim()))
    seen = _seen(x) if after else None
    if seen is None:
        wide = None if x.dtype.itemsize >= 4 else torch.float32
        within = torch.linalg.vector_norm(x, dim=after, dtype=wide) if after else x.abs()
        return torch.linalg.vector_norm(within, dim=before, dtype=wide) if before else within
    rows = seen.reshape(-1, 1, math.prod(x.shape[axis + 1 :]))
    with np.errstate(all="ignore"):  # a gradient may be infinite, which is told elsewhere
        squares = np.matmul(rows, rows.transpose(0, 2, 1)).reshape(-1, x.shape[axis]).sum(0)
        return torch.from_numpy(np.sqrt(squares))


def _seen(x: Tensor) -> np.ndarray | None:
    """What NumPy sees of a user's tensor; None where it is of no type, or in no order, of its own.

    Not by `numpy()`, which keeps the tensor's storage from ever being resized.
    """
    plain = type(x) is Tensor and on_host(x) and x.dtype in _NUMPYS
    return np.from_dlpack(x) if plain and x.is_contiguous() and x.numel() else None


def sample(x: Tensor, stride: int) -> Array:
    """Every `stride`-th element, in a row and a memory of their own; float32 at least."""
    few = x.detach().flatten()[::stride].clone()
    if not few.is_floating_point() or few.dtype.itemsize < 4:
        few = few.float()  # bfloat16 is no type of NumPy's
    # A NumPy array of the user's own tensor would keep its storage from ever being resized.
    return few.numpy() if on_host(few) else few


def joined(parts: Sequence[Array]) -> Array:
    """One after another, as float32."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts, dtype=np.float32, casting="same_kind")
    return torch.cat(list(parts)).float()


def stack(rows: Sequence[Array]) -> Array:
    """One below another."""
    return np.stack(rows) if isinstance(rows[0], np.ndarray) else torch.stack(list(rows))


def countdown(n: int, *, like: Array) -> Array:
    """n, n − 1, …, 1 in a column."""
    if isinstance(like, np.ndarray):
        return np.arange(n, 0, -1, dtype=np.float32)[:, None]
    return torch.arange(n, 0, -1, dtype=torch.float32, device=like.device)[:, None]


def highest(x: Array) -> Array:
    """The maximum of each column."""
    return x.max(0) if isinstance(x, np.ndarray) else x.amax(0)


def where(flags: Array, x: Array, other: float) -> Array:
    """`x` where flagged, and elsewhere the number."""
    return (np if isinstance(x, np.ndarray) else torch).where(flags, x, other)


def count_bins(x: Array, first: float, width: float, n_bins: int, weights: Array) -> Array:
    """Histogram over bins of equal width, with what lies below and above them at the ends.

    `torch.histc` takes milliseconds for a few hundred elements where it runs in several threads.

    Args:
        x: Finite numbers, in a row.
        first: Where the first bin begins; an element on an edge belongs to the bin that begins
            there.
        width: Of each bin.
        n_bins: How many.
        weights: What each element counts for.

    Returns:
        [n_bins + 2], as floats.
    """
    if isinstance(x, np.ndarray):
        places = np.clip(np.floor((x - first) / width), -1, n_bins).astype(np.intp) + 1
        return np.bincount(places, weights, n_bins + 2)
    places = ((x - first) / width).floor().clamp_(-1, n_bins).long() + 1
    return torch.zeros(n_bins + 2, device=x.device).scatter_add_(0, places, weights.float())


def in_a_row(numbers: Sequence[Any], more: Array) -> Array:
    """Numbers, each an element, and then those of a vector; float64."""
    if isinstance(more, np.ndarray):
        return np.concatenate([np.array(numbers, np.float64), more])
    return torch.cat([torch.stack(list(numbers)), more]).double()


def as_tensor(x: Array) -> Tensor:
    """A tensor of the same numbers."""
    return torch.from_numpy(x) if isinstance(x, np.ndarray) else x


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
                self._numbers.append(float(x))
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
        """All since the last call, in their order; what is on the host comes first."""
        self.pack()
        numbers, parts = self._numbers, self._parts
        self._numbers, self._parts = [], []
        if parts and numbers:
            return torch.cat([parts[0].new_tensor(numbers), *parts])
        return parts[0] if parts else numbers
