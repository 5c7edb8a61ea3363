"""Whether the loss uses the potential that a layer keeps, where it does not use its spikes.

A readout is often read by its membrane: the loss takes u, and nobody the spikes. It looks like a
layer that somebody cut off, but for the gradient that reaches its state.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from ..calls import Call, Subject


_DEEPEST = 3  # what is returned: a tuple, of states, of their fields


class StateUse:
    """Listens at the states of a layer, in steps with the dear readings.

    Attributes:
        is_used: Whether a gradient came to a state since one came to the spikes.
    """

    def __init__(self, subject: Subject) -> None:
        self.is_used = False
        self._looks = True
        self._hook = subject.in_backward(self._hear)

    def add(self, call: Call) -> None:
        """Listen at what the layer returned beside its spikes, and at what it keeps."""
        if call.detailed and self._looks and not self.is_used and call.has_graph:
            for state in _states(call):
                state.register_hook(self._hook)

    def _hear(self, gradient: Tensor) -> None:  # noqa: ARG002 - that it came is all that counts
        self.is_used = True

    def end(self, *, spikes_used: bool) -> None:
        """A backward pass has gone by. Where the loss uses the spikes, that is all one asks for."""
        self._looks = not spikes_used
        if spikes_used:
            self.is_used = False


def _states(call: Call) -> Iterator[Tensor]:
    """Tensors with a graph that hold one number for each neuron and sample; each of them once."""
    if call.module is None:
        return
    size = call.values.numel()
    sizes, seen = {size, size // max(1, call.n_steps)}, {id(call.spikes)}
    # Libraries keep states as attributes, as buffers, or in a dictionary of their own.
    for held in _tensors([call.output, *vars(call.module).values()], _DEEPEST):
        if held.grad_fn is not None and held.numel() in sizes and id(held) not in seen:
            seen.add(id(held))
            yield held


def _tensors(values: Iterable[Any], depth: int) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif depth and isinstance(value, dict):
            yield from _tensors(value.values(), depth - 1)
        elif depth and isinstance(value, tuple | list):
            yield from _tensors(value, depth - 1)
