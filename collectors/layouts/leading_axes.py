"""Time and batch of spikes that are made of a whole sequence at once, without a loop over time.

A quantizer of membrane potentials (integer spikes, Luo et al. 2024) goes over the elements of
[T, B, C, H, W]: neither its node in the graph nor its code tells where time is. But layers that
know of no time were called on [T·B, C, H, W] before, and the graph shows how that was taken apart.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from torch import Tensor, nn

from ..surrogate import output_shape
from .inferred_axes import behind, shape_of
from .inner_loops import steps_held


_LEAST_RANK = 3
_MOST_NODES = 64
_MOST_PAIRS = 64
_SPLITS = ("View", "UnsafeView", "ReshapeAlias", "Unsqueeze")
# Of their inputs the first axis is the batch; of a matrix product's it may be anything.
_BATCH_FIRST = ("Convolution", "BatchNorm", "Pool")
_READ_AS = (
    "it makes {shape} at once, which is read as {axes!r}: which leading axis is that of time "
    "cannot be told from the graph; if it is the other one, name it: attach(layers={{name: 'BT*'}})"
)
_NOT_TOLD = (
    "{shape} has one axis more than a batch of what the model's convolutions make. It is read as "
    "one time step of a batch, 'B*'; if it is more, name its axes: attach(layers={{name: 'TB*'}})"
)


class LeadingAxes:
    """What is known of the leading axes of a model's layers, which share time and batch.

    Until it follows a model, only graphs tell.
    """

    def __init__(self) -> None:
        self._steps: set[int] = set()
        self._rank = 0
        """Of a batch of what the convolutions make; 0 without any."""
        self._pairs: set[tuple[int, ...]] = set()

    def follow(self, model: nn.Module) -> None:
        """Take a model as it is now."""
        modules = [*nn.Module.modules(model)]
        self._steps = {n for m in modules for n in steps_held(m)}
        convolutions = (m for m in modules if isinstance(m, nn.modules.conv._ConvNd))
        places = max((len(m.kernel_size) for m in convolutions), default=0)
        self._rank = places + 2 if places else 0

    def axes(
        self,
        spikes: Tensor,
        nodes: Sequence[Any],
        widths: Collection[int],
        tell: Callable[[str], None],
    ) -> str:
        """Axes of spikes that were made at once, element by element.

        Args:
            spikes: What the neuron returned.
            nodes: The surrogate's nodes behind that.
            widths: How many outputs the model's layers have.
            tell: Is told what is not certain.
        """
        shape = tuple(spikes.shape)
        if len(shape) < _LEAST_RANK or any(output_shape(node) != shape for node in nodes):
            return "B*"
        pair, surplus = shape[:2], len(shape) == self._rank + 1 and self._rank > 0
        if _was_split(nodes, pair):
            if len(self._pairs) == _MOST_PAIRS:
                self._pairs.clear()
            self._pairs.add(pair)
        if pair not in self._pairs and not (surplus and shape[2] in widths):
            if surplus and shape[1] not in widths:
                tell(_NOT_TOLD.format(shape=[*shape]))
            return "B*"
        known = [n in self._steps for n in pair]
        axes = "BT*" if known == [False, True] else "TB*"
        if not any(known) and 1 not in pair:
            tell(_READ_AS.format(shape=[*shape], axes=axes))
        return axes


def _was_split(nodes: Sequence[Any], pair: tuple[int, ...]) -> bool:
    """Whether a batch was taken apart into these two axes, before all else that was done to it."""
    todo = [parent for node in nodes for parent, _ in node.next_functions]
    seen: set[Any] = set()
    while todo and len(seen) < _MOST_NODES:
        node = todo.pop(0)
        if node is None or node in seen:
            continue
        seen.add(node)
        shape = shape_of(node)
        if shape[:2] != pair:
            continue
        todo += [parent for parent, _ in node.next_functions]
        if node.name().startswith(_SPLITS):
            whole = behind(node.next_functions[0][0])
            if whole is not None and any(kind in whole.name() for kind in _BATCH_FIRST):
                was = shape_of(whole)
                if len(was) >= _LEAST_RANK and was[0] == pair[0] * pair[1] and was[1:] == shape[2:]:
                    return True
    return False
