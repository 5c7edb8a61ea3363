"""Straight-through estimators: whether a graph adds what has no gradient, to change values only."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .hooks import saved_tensors_are_hooked
from .surrogate import MAX_NODES, MAX_SCALINGS, MOVES, SCALINGS, output_shape


_SUMS = ("AddBackward0", "SubBackward0")
_SCALINGS = ("MulBackward0", "DivBackward0", "NegBackward0")
_JOINS = ("Stack", "Cat", "CopySlices", "IndexCopy", "IndexPut")
_MOST_NODES = 256


def is_straight_through(x: Tensor, inputs: Sequence[Tensor]) -> bool:
    """Whether values are a sum with a part that has no gradient: `hard + soft - soft.detach()`.

    What a gate makes of its input is a product with a mask, or an operation of its own. A product
    with a number is none: it leaves no zeros where there were others.

    Args:
        x: What a layer returned.
        inputs: What it was called with: how these were made says nothing of the layer.
    """
    seen: set[Any] = {t.grad_fn for t in inputs}
    open_ends = [x.grad_fn]
    while open_ends and len(seen) < _MOST_NODES:
        node = open_ends.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name, parents = node.name(), [parent for parent, _ in node.next_functions]
        whole = None not in parents
        if name in _SUMS and not whole:
            return True
        scales = name in _SCALINGS and (whole or _is_by_number(node))
        if name in _SUMS or scales or any(move in name for move in MOVES):
            open_ends += parents
    return False


def makers_of(spikes: Tensor) -> list[Any]:
    """The nodes that made spikes without a custom function, one for each time step of a loop.

    Of a detach trick they are the sums with what has no gradient. Of anything else they are what
    was put together, as far as each part has one axis less than the whole.

    Args:
        spikes: What a layer returned.
    """
    sums, parts, seen = list[Any](), list[Any](), set[Any]()
    rank = spikes.dim() - 1
    open_ends = [(spikes.grad_fn, 0, False)]
    while open_ends and len(seen) < MAX_NODES:
        node, scalings, is_part = open_ends.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name, parents = node.name(), [parent for parent, _ in node.next_functions]
        if name in _SUMS and None in parents:
            sums.append(node)
            continue
        if not any(move in name for move in MOVES):
            if is_part and len(output_shape(node)) == rank:
                parts.append(node)
                is_part = False  # nor is what it is made of
            if not name.startswith(SCALINGS) or scalings == MAX_SCALINGS:
                continue
            scalings += 1
        is_part |= any(join in name for join in _JOINS)
        # Reversed, so that time steps come out in their order.
        open_ends += [(parent, scalings, is_part) for parent in reversed(parents)]
    return sums or parts


def _is_by_number(node: Any) -> bool:
    """Whether the factor of a product that has no gradient is a single number."""
    if saved_tensors_are_hooked():
        return False  # to look at what was saved might compute, or copy, it anew
    try:
        factor = getattr(node, "_saved_other", None)
    except RuntimeError:  # changed in place since, as a number is not
        return False
    return isinstance(factor, Tensor) and factor.numel() == 1
