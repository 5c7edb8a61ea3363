"""Is a tensor made of a few levels: {0, 1}, {−1, 0, 1}, ±α times those?

Never by counting unique values: a straight-through estimator `w + (q − w).detach()` leaves seven
unique values in a ternary tensor (relative error 2.3e-7 in fp32, 7.6e-3 in bf16).
"""

from typing import Literal

import torch
from torch import Tensor


Granularity = Literal["tensor", "row", "group"]

# Relative tolerance of a level, measured on straight-through estimators, by bytes an element.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}
_GROUPS = (128, 64, 32)
# So many elements on average have to share a level before one level is no coincidence.
_MIN_SHARING = 4
# Levels that spikes may have whatever the sample: multi-spike counts, amplitudes of channels.
_MAX_LEVELS = 8
_MIN_EVENTS = 32


def ternary_granularity(x: Tensor) -> Granularity | None:
    """How a tensor is ternary, if it is: with one positive and one negative level, and zeros.

    Args:
        x: Weights of shape (out, *), or any other tensor whose rows may have scales of their own.

    Returns:
        `tensor` for one pair of levels, `row` for one pair for each x[i], `group` for one pair for
        each 128, 64 or 32 neighbours; None if the tensor is not ternary. Binary and all-zero
        tensors count as ternary ones whose other levels are empty.
    """
    flat = x.detach()
    if not flat.is_floating_point():
        flat = flat.float()
    if _has_two_levels(flat.reshape(1, -1)):
        return "tensor"
    if flat.dim() >= 2 and _has_two_levels(flat.flatten(1)):
        return "row"
    for size in _GROUPS:
        if flat.shape[-1] % size == 0 and _has_two_levels(flat.reshape(-1, size)):
            return "group"
    return None


def _has_two_levels(rows: Tensor) -> bool:
    tolerance = _TOLERANCE.get(rows.dtype, 1e-5)
    n_nonzero = int(rows.ne(0).sum())
    if n_nonzero and n_nonzero < _MIN_SHARING * rows.shape[0]:
        return False
    for side in (rows, -rows):
        inside = side > 0
        high = side.where(inside, 0).amax(1)
        low = side.where(inside, torch.inf).amin(1).minimum(high)
        if bool((high - low > tolerance * high).any()) or not bool(high.isfinite().all()):
            return False
    return True


def looks_like_spikes(x: Tensor, *, sample: int = 4096) -> bool | None:
    """Whether values are spikes: zeros and a few levels.

    Args:
        x: Output of a layer; only an evenly spaced sample of it is looked at.
        sample: Size of the sample.

    Returns:
        None while there are too few events to say.
    """
    flat = x.detach().flatten()
    flat = flat[:: max(1, flat.numel() // sample)][:sample].float()
    nonzero = flat[flat.ne(0)].abs()
    if nonzero.numel() == 0:
        return None
    if not bool(nonzero.isfinite().all()):
        return None
    # Levels up to rounding; α may differ between channels, so a few are allowed.
    levels = torch.unique((nonzero / nonzero.max() * 1024).round()).numel()
    if levels > max(_MAX_LEVELS, nonzero.numel() // 64):
        return False
    return True if nonzero.numel() >= _MIN_EVENTS else None
