"""Sums of many small readings, folded together on the host."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from spikewatch.observing import OnHost

from .arrays import Readings


def in_full_precision(x: Tensor) -> Tensor:
    """`x` in float32 at least: in bfloat16, 89 991 ones sum to 90 112; integers become floats."""
    return x if x.dtype.is_floating_point and x.dtype.itemsize >= 4 else x.float()


class Tally:
    """Rows of scalars, one for each reading, summed up over the readings that are finite.

    One non-finite element makes a sum non-finite, which is far cheaper to see than each element.
    """

    _MANY = 256

    def __init__(self, *names: str, size: str = "n_read", bad: str) -> None:
        """Name the columns, the number of elements read, and that of non-finite readings."""
        self.names = (size, *names, bad)
        self._readings = Readings()
        self._sizes: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._sizes)

    def add(self, size: int, *row: Tensor | float) -> None:
        """Add one reading of `size` elements: a number, or a 0-d tensor, for each column."""
        self._readings.add(*row)
        self._sizes.append(size)
        if len(self._readings) >= self._MANY:
            self._readings.pack()

    def add_each(self, size: int, *columns: Tensor) -> None:
        """Add n readings of `size` elements: a vector [n] for each column."""
        self._readings.add(torch.stack(columns, 1).flatten())
        self._sizes += [size] * len(columns[0])

    def take(self) -> OnHost:
        """The sums of all readings since the last call, under `names`."""
        sizes, self._sizes = self._sizes, []
        return OnHost(self._readings.take(), partial(_fold, self.names, sizes))


def _fold(
    names: tuple[str, ...], sizes: list[int], numbers: Sequence[float]
) -> Mapping[str, float | int]:
    width = len(names) - 2
    sums, size, n_bad = [0.0] * width, 0, 0
    for i, n in enumerate(sizes):
        row = numbers[i * width : (i + 1) * width]
        if all(map(math.isfinite, row)):
            size += n
            sums = [a + b for a, b in zip(sums, row, strict=True)]
        else:
            n_bad += 1
    return dict(zip(names, (size, *sums, n_bad), strict=True))
