"""Whether a call goes on with the sample of the call before, as the autograd graph shows it.

A layer that does not tell when a sample begins may be called in a loop over time outside of the
model: once in each of its forward passes. So are the micro-batches of an accumulated gradient. Only
in the former does the potential come from the one before.
"""

import weakref
from collections.abc import Iterator
from typing import Any

from ..calls import Call
from ..surrogate import MOVES, output_shape


# From a spike to the potential that made it: a difference from the threshold, a scaling.
_TO_POTENTIAL = 4
# Decay, reset, input, refractory time, adaptation: a step of time is a dozen operations.
_MOST_NODES = 64


class Continuity:
    """Remembers the call before, as long as its graph lives."""

    def __init__(self) -> None:
        self._before: weakref.ref[Any] | None = None
        self._goes_on = False  # it ever did

    def goes_on(self, call: Call) -> bool:
        """Whether the call continues a sample; of calls without a graph, whether others do."""
        if not call.has_graph:
            self._before = None
            return self._goes_on
        nodes = call.nodes or call.find_nodes()
        before = None if self._before is None else self._before()
        self._before = weakref.ref(nodes[-1]) if nodes else None
        if before is None or not nodes:
            return False
        potentials = set(_upstream(before, _TO_POTENTIAL))
        found = any(node in potentials for node in _upstream(nodes[0], _MOST_NODES))
        self._goes_on |= found
        return found


def _upstream(node: Any, most: int) -> Iterator[Any]:
    """The node, and what is nearest before it, of the same shape: weights and leaves are not.

    States may be packed into one tensor on the way, by operations that only move elements.
    """
    shape, seen = output_shape(node), {node}
    waiting = [node]
    for node in waiting:  # which grows
        yield node
        for parent, _ in node.next_functions:
            if parent is None or parent in seen or len(seen) >= most:
                continue
            if hasattr(parent, "variable") or not _is_alike(parent, shape):
                continue
            seen.add(parent)
            waiting.append(parent)


def _is_alike(node: Any, shape: tuple[int, ...]) -> bool:
    return output_shape(node) == shape or any(move in node.name() for move in MOVES)
