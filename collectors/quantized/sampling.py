"""Which weights are followed where a layer has too many to follow each.

One weight of each of n strata of (nearly) equal size, the same ones at every look: a share p of
all N weights is then estimated with a standard error of at most √(p(1−p)/n), 1.2e-4 for a share of
0.001 of 65 536. They are worked out anew each time, so that nothing is kept, and no random number
is drawn.
"""

import torch
from torch import Tensor


_GOLDEN = 2_654_435_761  # 2³² / golden ratio: multiples of it cover 32 bits evenly (Knuth)


def strata(
    n_all: int, n: int, *, device: torch.device, begin: int = 0, end: int | None = None
) -> Tensor:
    """Indices of `n` of `n_all` elements: increasing, one in each stratum.

    Args:
        n_all: Number of elements.
        n: Number of strata.
        device: Where the indices are to be.
        begin: The first stratum that is wanted.
        end: The one behind the last.

    Returns:
        int64 [end − begin], of all strata [n].
    """
    k = torch.arange(begin, n if end is None else end, device=device)
    first = k * n_all // n
    width = (k + 1) * n_all // n - first
    # A stride alone could meet the same column of the matrix in every row.
    return first + (k * _GOLDEN % 2**32 * width >> 32)


def take(x: Tensor, indices: Tensor | None) -> Tensor:
    """Elements of `x`, flattened; all of them for None. Never copies all of them to take a few."""
    if indices is None:
        return x.flatten()
    if x.is_contiguous():
        return x.view(-1)[indices]
    return x[torch.unravel_index(indices, x.shape)]
