"""Surrogates that are given the distance from the threshold in other units than the potential's.

LSNN (Bellec et al. 2018) and DIET-SNN (Rathi & Roy 2020) divide by θ before the spike function:
(u − θ)/θ, or u/θ − 1. Others multiply by the surrogate's slope. A sign does not tell these from
u − θ; the graph in front of the spike function does.
"""

import math
from typing import Any

from torch import Tensor

from ..arrays import Array, on_host, sample
from ..surrogate import MOVES


_DIVIDES, _MULTIPLIES = "DivBackward0", "MulBackward0"
_SHIFTS = ("SubBackward0", "AddBackward0", "RsubBackward1")
_MOST_MOVES = 4


def unit_of(node: Any, saved: Tensor, theta: Array | None, *, stride: int) -> Array | None:
    """The potential's units in one unit of what a spike function was given.

    Args:
        node: Of the spike function.
        saved: What it was given, and saved.
        theta: The threshold, a number or one for each element that is read; None if unknown.
        stride: Which elements are read: every `stride`-th.

    Returns:
        θ for (u − θ)/θ and u/θ − 1, 1/k for k · (u − θ), as a number or one for each element that
        is read; None where the function was given the distance as it is.
    """
    outer = _behind(node)
    if outer is None:
        return None
    name = outer.name()
    if name in _SHIFTS:  # u/τ − θ is one as well, of a potential that has a unit of its own
        inner = _behind(outer)
        if inner is None or inner.name() != _DIVIDES:
            return None
        divisor = _constant(inner)
        return _laid(divisor, saved, stride) if _is_theta(divisor, theta) else None
    if name == _DIVIDES:
        return _laid(_constant(outer), saved, stride)
    slope = _constant(outer) if name == _MULTIPLIES else None
    # What has many factors is masked, or weighed.
    return None if slope is None or slope.numel() != 1 else 1.0 / _laid(slope, saved, stride)


def _behind(node: Any) -> Any:
    """The one node that made what this one was given; None where there are several, or none."""
    for _ in range(_MOST_MOVES):
        made = [behind for behind, _ in node.next_functions if behind is not None]
        if len(made) != 1:
            return None
        node = made[0]
        if not node.name().startswith(MOVES):
            return node
    return None


def _constant(node: Any) -> Tensor:
    """What a quotient was divided by, or a product's factor without a graph."""
    swapped = node.name() == _MULTIPLIES and node.next_functions[0][0] is None
    return node._saved_self if swapped else node._saved_other


def _laid(constant: Tensor, like: Tensor, stride: int) -> Array:
    """The size of a constant, for each element that is read; its sign the spikes have told."""
    constant = constant.detach().abs()
    if constant.numel() == 1:
        return constant.item() if on_host(constant) else constant.reshape(())
    return sample(constant.to(like.dtype).broadcast_to(like.shape), stride)


def _is_theta(constant: Tensor, theta: Array | None) -> bool:
    """Whether a divisor is the threshold; where to compare would wait for a device, it is not."""
    if constant.numel() != 1 or not isinstance(theta, float):
        return False
    return on_host(constant) and math.isclose(float(constant.detach()), theta, rel_tol=1e-5)
