"""Sums that half precision does not spoil: in bfloat16, 89 991 ones sum to 90 112."""

import torch
from torch import Tensor


def exact_sum(x: Tensor) -> Tensor:
    """Σx as a float64 scalar, added up in float32 at least."""
    wide = x.dtype.is_floating_point and x.dtype.itemsize >= 4
    return x.sum(dtype=None if wide else torch.float32).double()
