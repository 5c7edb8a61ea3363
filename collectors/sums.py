"""Sums of many small readings, taken together when a step ends."""

import torch
from torch import Tensor


def in_full_precision(x: Tensor) -> Tensor:
    """`x` in float32 at least: in bfloat16, 89 991 ones sum to 90 112; integers become floats."""
    return x if x.dtype.is_floating_point and x.dtype.itemsize >= 4 else x.float()


class Tally:
    """Rows of scalars, one for each reading, summed up over the readings that are finite.

    One non-finite element makes a sum non-finite, which is far cheaper to see than each element.
    Rows are kept as they come and folded together in a few operations.
    """

    _MOST = 512

    def __init__(self, width: int) -> None:
        self._width = width
        self._rows: list[Tensor] = []
        self._sizes: list[int] = []
        self._folded: Tensor | None = None

    def __bool__(self) -> bool:
        return bool(self._sizes) or self._folded is not None

    def add(self, size: int, *row: Tensor) -> None:
        """Add one reading of `size` elements: 0-d tensors, `width` of them."""
        self._rows += row
        self._sizes.append(size)
        if len(self._sizes) >= self._MOST:
            self._fold()

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        """Number of elements, sums [width], and number of readings that were not finite."""
        self._fold()
        folded, self._folded = self._folded, None
        assert folded is not None  # noqa: S101 - callers ask `if tally` first
        return folded[0], folded[1:-1], folded[-1]

    def _fold(self) -> None:
        if not self._sizes:
            return
        rows = torch.stack(self._rows).view(-1, self._width).double()
        finite = rows.sum(1).isfinite()
        if len(set(self._sizes)) == 1:
            sizes = rows.new_full((len(self._sizes), 1), self._sizes[0])
        else:
            sizes = rows.new_tensor(self._sizes).unsqueeze(1)
        table = torch.cat([sizes, rows], 1).where(finite.unsqueeze(1), 0)
        row = torch.cat([table.sum(0), finite.logical_not().sum().double().reshape(1)])
        self._rows, self._sizes = [], []
        self._folded = row if self._folded is None else self._folded + row
