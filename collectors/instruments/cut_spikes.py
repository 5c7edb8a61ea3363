"""Spikes that carry no graph, though the weights before them are to learn.

As where a neuron fires by `(v >= θ).float()` and has no surrogate gradient: then no backward pass
comes by that could be counted. Much else makes spikes without a graph, and on purpose: a frozen
encoder, a reservoir, a rule of learning of its own (STDP, e-prop), a readout by its potential. So
what counts is what came of it when the step ends: an optimizer holds these weights, and there was
no gradient for it, nor did anything else change them.
"""

import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spikewatch.observing import Counts

from ..calls import Call, Subject


_MOST_NODES = 32
_GLANCE = 64  # so many elements of a weight tell whether it was changed behind autograd's back


class CutSpikes:
    """Follows the weights before a layer from its first call without a graph to the step's end."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._weights: list[_Weight] = []
        self._has_graph = False

    def add(self, call: Call) -> None:
        """Look at one call; the first of a sample may have no graph in any neuron."""
        self._has_graph |= call.has_graph
        if self._has_graph or self._weights or call.again or call.module is None:
            return
        if call.module.training and torch.is_grad_enabled() and not call.spikes.is_inference():
            # To look at a tensor of another make, as a sharded one, would be an operation of all.
            before = (p for p in _before(call, call.module) if type(p) is nn.Parameter)
            self._weights = [_Weight(p) for p in before]

    def flush(self) -> Counts | None:
        """The counter `is_cut` in the table `gradients`."""
        weights, has_graph = self._weights, self._has_graph
        self._weights, self._has_graph = [], False
        if has_graph:
            return Counts({"gradients": {"is_cut": 0}})
        held = [w for w in weights if w.is_held_by(self._subject)]
        if not held:
            return None
        idle = all(w.has_no_gradient for w in held)
        return Counts({"gradients": {"is_cut": _all(held) if idle else 0}})


def _all(weights: "Sequence[_Weight]") -> Tensor:
    same = [w.is_unchanged for w in weights]
    return torch.stack([x.to(same[0].device) for x in same]).all().long()


class _Weight:
    """A parameter as it was when it was used."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self._parameter = weakref.ref(parameter)
        self._version = parameter._version
        self._glance = _glance(parameter).clone()

    def is_held_by(self, subject: Subject) -> bool:
        """Whether it is there still, and an optimizer is to train it."""
        parameter = self._parameter()
        return parameter is not None and subject.optimizes(parameter)

    @property
    def has_no_gradient(self) -> bool:
        parameter = self._parameter()
        return parameter is not None and parameter.grad is None

    @property
    def is_unchanged(self) -> Tensor:
        """0-d: on a device nobody waits for it."""
        parameter = self._parameter()
        if parameter is None or parameter._version != self._version:
            return torch.zeros((), dtype=torch.bool, device=self._glance.device)
        return (_glance(parameter) == self._glance).all()


def _glance(parameter: Tensor) -> Tensor:
    flat = parameter.detach().flatten()
    return flat[:: max(1, len(flat) // _GLANCE)]


def _before(call: Call, module: nn.Module) -> Iterator[nn.Parameter]:
    """Trainable parameters of the layer, and the nearest ones behind what it was given."""
    for part in nn.Module.modules(module):
        yield from (p for p in part._parameters.values() if p is not None and p.requires_grad)
    todo: deque[Any] = deque(x.grad_fn for x in call.inputs if isinstance(x, Tensor))
    seen: set[Any] = {None}
    while todo and len(seen) <= _MOST_NODES:
        node = todo.popleft()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(leaf := getattr(node, "variable", None), nn.Parameter):
            yield leaf
        todo += [parent for parent, _ in node.next_functions]
