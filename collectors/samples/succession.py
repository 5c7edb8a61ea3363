"""Whether a layer that gets sequences is fed by itself: it stands at several places of a model.

A network may also pass several samples through such a layer in one forward pass: twins that are
compared, windows of a long recording. There no call depends on another one. Nor do the inputs of
the parts of one long sample, whose state is carried on.
"""

import weakref
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ..calls import Call


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
        # It ever was, where that has been seen; of calls that begin a sample, and that go on.
        self._found: dict[tuple[Shape, bool], bool] = {}

    def add(self, call: Call, *, forward: int) -> bool:
        """Whether a call depends on an earlier one of the pass; it may, where nothing shows it."""
        if forward != self._forward:
            self._forward, self._before = forward, {}
        shape = call.neuron_shape
        before = self._before.get(shape)
        self._before[shape] = [*(before or ()), *map(weakref.ref, call.nodes)]
        if before is None:
            return False
        begins = bool(call.starts_sample)
        known = (shape, begins)
        if not call.nodes:
            # Nothing shows it: parts of a sample are taken for that.
            return forward > 0 and not call.has_graph and self._found.get(known, begins)
        alive = {node for ref in before if (node := ref()) is not None}
        # The potential of a call that goes on comes from the one before anyway.
        roots = call.nodes[:1] if begins else _graphs(call.inputs)
        found = bool(alive) and any(node in alive for root in roots for node in _upstream(root))
        self._found[known] = found or self._found.get(known, False)
        return found

    def end_step(self) -> None:
        """What comes next is another pass."""
        self._forward, self._before = -1, {}


def _graphs(inputs: tuple[Any, ...]) -> list[Any]:
    return [x.grad_fn for x in inputs if isinstance(x, Tensor) and x.grad_fn is not None]


def _upstream(node: Any) -> Iterator[Any]:
    """The node, and what is nearest before it."""
    seen, waiting = {node}, [node]
    for node in waiting:  # which grows
        yield node
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen and len(seen) < _MOST_NODES:
                seen.add(parent)
                waiting.append(parent)
