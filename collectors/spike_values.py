"""Are values spikes, by themselves: zeros and a few levels?"""

import torch
from torch import Tensor


# Levels that spikes may have whatever the sample: multi-spike counts, amplitudes of channels.
_MAX_LEVELS = 8
_MIN_EVENTS = 32
# Fewer levels without a 0 may be counts of spikes, where all neurons fire more than once.
_MIN_TIMES = 5


def looks_like_spikes(x: Tensor, *, sample: int = 4096, may_all_fire: bool = False) -> bool | None:
    """Whether values are spikes: zeros and a few levels.

    Args:
        x: Output of a layer; only an evenly spaced sample of it is looked at.
        sample: Size of the sample.
        may_all_fire: Whether values that all are events may have any levels. Else they may be the
            times of spikes instead.

    Returns:
        None while there are too few events to say, or they may be times as well.
    """
    flat = x.detach().flatten()
    flat = flat[:: max(1, flat.numel() // sample)][:sample].float()
    nonzero = flat[flat.ne(0)].abs()
    if nonzero.numel() == 0:
        return None
    if not bool(nonzero.isfinite().all()):
        return None
    # Levels up to rounding; α may differ between channels, so a few are allowed.
    levels = _rounded(nonzero).numel()
    if levels > max(_MAX_LEVELS, nonzero.numel() // 64):
        return False
    if nonzero.numel() < _MIN_EVENTS:
        return None
    return True if may_all_fire else _unlike_times(flat)


def are_of_one_size(x: Tensor, *, sample: int = 4096) -> bool:
    """Whether values that are not 0 all have one size, and some are 0: no activations of few bits.

    Args:
        x: What a function made; only an evenly spaced sample of it is looked at.
        sample: Size of the sample.
    """
    flat = x.detach().flatten()
    flat = flat[:: max(1, flat.numel() // sample)][:sample].float().abs()
    nonzero = flat[flat.ne(0)]
    return nonzero.numel() < flat.numel() and (nonzero.numel() == 0 or len(_rounded(nonzero)) == 1)


def _rounded(positive: Tensor) -> Tensor:
    return torch.unique((positive / positive.max() * 1024).round())


def _unlike_times(values: Tensor) -> bool | None:
    """Whether values on a few levels are no times of spikes, of which none is 0.

    Returns:
        None where they may be either: all at one time, or counts of spikes where all have fired.
    """
    if not bool((values > 0).all()) or bool((values == 1).all()):
        return True
    levels = _rounded(values)
    # The lowest count is one step of the grid above 0; times are farther from it than from another.
    far = len(levels) >= _MIN_TIMES and bool(levels[0] > 1.5 * levels.diff().min())
    return False if far else None
