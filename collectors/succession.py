"""Whether a layer that gets sequences is fed by itself: it stands at several places of a model.

A network may also pass several samples through such a layer in one forward pass: twins that are
compared, windows of a long recording. There no call depends on another one.
"""

import weakref
from collections.abc import Iterator
from typing import Any

from .calls import Call


# From the first time step of a call to the last layer's spikes: weights, norms, views of both.
_MOST_NODES = 256

Shape = tuple[int, ...]


class Succession:
    """Remembers the calls of one forward pass of the model, as long as their graphs live.

    Those with neurons of different shapes are counted apart anyway.
    """

    def __init__(self) -> None:
        self._forward = -1
        self._before: dict[Shape, list[weakref.ref[Any]]] = {}
        self._found: dict[Shape, bool] = {}  # it ever was, where that has been seen

    def add(self, call: Call, *, forward: int) -> bool:
        """Whether a call depends on an earlier one of the pass; it may, where nothing shows it."""
        if forward != self._forward:
            self._forward, self._before = forward, {}
        shape = call.neuron_shape
        before = self._before.get(shape)
        self._before[shape] = [*(before or ()), *map(weakref.ref, call.nodes)]
        if before is None or not call.starts_sample:
            return False
        if not call.nodes:
            return forward > 0 and not call.has_graph and self._found.get(shape, True)
        alive = {node for ref in before if (node := ref()) is not None}
        found = any(node in alive for node in _upstream(call.nodes[0])) if alive else False
        self._found[shape] = found or self._found.get(shape, False)
        return found

    def end_step(self) -> None:
        """What comes next is another pass."""
        self._forward, self._before = -1, {}


def _upstream(node: Any) -> Iterator[Any]:
    """The node, and what is nearest before it."""
    seen, waiting = {node}, [node]
    for node in waiting:  # which grows
        yield node
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen and len(seen) < _MOST_NODES:
                seen.add(parent)
                waiting.append(parent)
