"""Weights in a sparse tensor: how many outputs an input reaches is how many entries it has."""

import torch
from torch import Tensor

from .fan_out import FanOut


_LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)


def is_sparse(x: Tensor) -> bool:
    """Whether a tensor keeps its entries only."""
    return x.layout in _LAYOUTS


def fan_out_of_entries(weight: Tensor, inputs: int) -> FanOut:
    """Fan-out of the entries of a sparse matrix.

    Args:
        weight: [outputs, inputs], or turned.
        inputs: Which of its two axes is that of the inputs.
    """
    n = weight.shape[inputs]
    places = _places(weight.detach(), inputs)
    ones = torch.ones(places.shape, dtype=torch.float64, device=places.device)
    each = torch.zeros(n, dtype=torch.float64, device=places.device).index_add_(0, places, ones)
    return FanOut(each, len(places) / max(1, n))


def _places(weight: Tensor, axis: int) -> Tensor:
    """Where along an axis the entries are."""
    coo = weight if weight.layout == torch.sparse_coo else weight.to_sparse_coo()
    return coo._indices()[axis]
