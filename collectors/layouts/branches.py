"""Whether a module is one neuron where a model calls it at several places.

One that keeps a state may be called at two places in each time step, which take turns: its sample
has half as many steps as there are calls, and is not told from two samples.

One without a state, a surrogate module, may be shared by gates, or by layers. A loop over time may
also have a branch of its own for the first time step, or the first step may be written out: then
each call goes on with the potential of the one before, through elementwise operations alone, and
none comes back to an earlier place. Weights, and spikes, lead to another neuron.
"""

import weakref
from collections.abc import Hashable
from typing import Any

from torch.autograd.function import BackwardCFunction

from ..calls import Call
from ..surrogate import output_shape


# Of the graph before a spike; of the call before, more, so that nothing of it is taken for new.
_MOST_NODES = 64
_MOST_NODES_BEFORE = 256
# Behind the call before: a difference from the threshold, a scaling, the potential.
_TO_POTENTIAL = 4
_OTHER_LAYERS = (
    "Mm",
    "Addmm",
    "Bmm",
    "Baddbmm",
    "Convolution",
    "NativeBatchNorm",
    "NativeLayerNorm",
)


class Branches:
    """Follows the places of a layer's calls in one step after the other."""

    def __init__(self) -> None:
        self._place: Hashable = None
        self._left: set[Hashable] = set()  # places before that one, in the sample that runs
        self._before: weakref.ref[Any] | None = None
        self._linked: dict[tuple[Hashable, Hashable], bool] = {}  # where a graph has shown it

    def add(self, call: Call) -> bool:
        """Whether a call belongs to another neuron than the one before it in this step."""
        if call.starts_sample:
            self._left.clear()
            self._place = None
        if call.place is None:
            return False
        last, self._place = self._place, call.place.code
        before = None if self._before is None else self._before()
        is_function = not call.place.keeps_state
        nodes = (call.nodes or call.find_nodes()) if is_function and call.has_graph else []
        self._before = weakref.ref(nodes[-1]) if nodes else None
        if last is None or last == self._place:
            return False
        self._left.add(last)
        if self._place in self._left:  # gates take turns, and so do the places of a neuron
            return True
        if not is_function:  # with one state for its sample, wherever it is called
            return False
        ways = last, self._place
        if before is not None and nodes:
            self._linked[ways] = self._linked.get(ways, True) and _goes_on(nodes[0], before)
        return not self._linked.get(ways, False)

    def end_step(self) -> None:
        """What comes next is another sample."""
        self._place = self._before = None
        self._left.clear()


def _goes_on(spike: Any, before: Any) -> bool:
    """Whether a spike's potential is that of the one before, and something new added to it.

    What two thresholds make of one potential adds nothing.
    """
    potential, charges = _behind(spike, _MOST_NODES)
    potential_before, charges_before = _behind(before, _MOST_NODES_BEFORE)
    near = [*potential_before, *charges_before][:_TO_POTENTIAL]
    known = {*potential_before, *charges_before}
    return not {*potential, *charges}.isdisjoint(near) and not known.issuperset(charges)


def _behind(spike: Any, most: int) -> tuple[dict[Any, None], dict[Any, None]]:
    """What is before a spike by elementwise operations, nearest first, and where these end.

    They end at weights, at spikes, and at what has another shape.
    """
    shape, found, ends = output_shape(spike), dict[Any, None](), dict[Any, None]()
    waiting = [spike]
    for node in waiting:  # which grows
        for parent, _ in node.next_functions:
            if parent is None or hasattr(parent, "variable") or parent in found or parent in ends:
                continue
            if len(found) + len(ends) >= most:
                return found, ends
            is_other = isinstance(parent, BackwardCFunction) or parent.name().startswith(
                _OTHER_LAYERS
            )
            if is_other or output_shape(parent) != shape:
                ends[parent] = None
            else:
                found[parent] = None
                waiting.append(parent)
    return found, ends
