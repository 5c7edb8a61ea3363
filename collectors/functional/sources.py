"""Which weights feed a function: what a layer that is no module is called after."""

import weakref
from collections import deque
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from spikewatch.layers import named_modules

from ..hooks import saved_tensors_are_hooked


_MOST_NODES = 256
_MOST_OTHERS = 64  # more are made anew in each step, and tell nothing apart
# What multiplies with a weight: its result is no weight any more.
_PRODUCTS = ("mm", "Mm", "Convolution", "Linear", "Dot", "Mv", "Embedding", "EinsumBackward")
_SCALINGS = ("MulBackward", "DivBackward")
_MOST_STEPS = 16
_WEIGHTS = ("weight", "kernel", "original", "W")


class Source(NamedTuple):
    """Where an input comes from.

    Attributes:
        name: The layer whose weights are nearest to it, or the parameter itself; "" if none is;
            `unregistered.1` and so on, where the model has no such parameter.
        is_weight: Whether it is a weight, and nothing that was made with one.
    """

    name: str
    is_weight: bool


UNREGISTERED = "unregistered"
NOWHERE = Source("", is_weight=False)


class Weights:
    """Names of a model's weights, and of those that it computes with and does not know."""

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)
        self._names: dict[int, str] = {}
        self._others: dict[int, tuple[weakref.ref[Tensor], str]] = {}
        self.follow(model)

    def follow(self, model: nn.Module) -> None:
        """Take the weights that the model has now."""
        self._names = _names_of_weights(model)

    def name_of(self, variable: Tensor, *, multiplied: bool) -> str:
        """The layer that a leaf of the graph belongs to, or its own name; "" if it is no weight.

        Of those that are not registered only what is multiplied with is a weight for sure.
        """
        name = self._names.get(id(variable), "")
        if name or not multiplied or not isinstance(variable, nn.Parameter):
            return name
        known = self._others.get(id(variable))
        if known is not None and known[0]() is variable:
            return known[1]
        if not _is_weight(variable) or len(self._others) == _MOST_OTHERS:
            return ""
        model = self._model()
        if model is not None:
            self._names |= _names_of_weights(model)
        if id(variable) in self._names:  # it has come after `attach()`
            return self._names[id(variable)]
        name = f"{UNREGISTERED}.{len(self._others) + 1}"
        self._others[id(variable)] = weakref.ref(variable), name
        return name


def _names_of_weights(model: nn.Module) -> dict[int, str]:
    """By the id of each parameter that is a weight: the layer it belongs to, or its own name."""
    names = {}
    for name, module in named_modules(model).items():
        layer = name.partition(".parametrizations.")[0]
        for own, parameter in module._parameters.items():
            if parameter is not None and _is_weight(parameter):
                hidden = layer and own.startswith(_WEIGHTS)
                names[id(parameter)] = layer if hidden else f"{layer}.{own}".lstrip(".")
    return names


def _is_weight(parameter: Tensor) -> bool:
    return not is_lazy(parameter) and sum(n > 1 for n in parameter.shape) > 1


def source_of(x: Tensor, weights: Weights) -> Source:
    """The weights nearest to a tensor in its autograd graph.

    Weights that are not registered in the model are told apart as well, or all that they feed
    would be taken for the layer before.

    Args:
        x: What a function was given.
        weights: Names of the model's weights.
    """
    if x.grad_fn is None:
        name = weights.name_of(x, multiplied=False) if isinstance(x, nn.Parameter) else ""
        return Source(name, is_weight=bool(name))
    ends: deque[tuple[Any, bool]] = deque([(x.grad_fn, False)])
    seen = {x.grad_fn}
    while ends and len(seen) < _MOST_NODES:
        node, multiplied = ends.popleft()
        multiplied |= any(product in node.name() for product in _PRODUCTS)
        for parent, _ in node.next_functions:
            if parent is None or parent in seen:
                continue
            seen.add(parent)
            variable = getattr(parent, "variable", None)
            if variable is None:
                ends.append((parent, multiplied))
            elif name := weights.name_of(variable, multiplied=multiplied):
                return Source(name, not multiplied and variable.shape == x.shape)
    return NOWHERE


def is_of_parameters(x: Tensor) -> bool:
    """Whether a tensor is a function of one parameter, or several of its size, and of nothing else.

    An input without a gradient leaves no trace in the graph but a gap: what has a gap is taken for
    none, but for a factor that is a single number.
    """
    todo, n_seen, found = [x.grad_fn], 0, False
    if x.grad_fn is None:
        return isinstance(x, nn.Parameter)
    while todo:
        node = todo.pop()
        n_seen += 1
        if node is None or n_seen > _MOST_STEPS or node.name().startswith(_PRODUCTS):
            return False
        variable = getattr(node, "variable", None)
        if variable is not None:
            if not isinstance(variable, nn.Parameter) or variable.numel() != x.numel():
                return False
            found = True
        todo += [parent for parent, _ in node.next_functions if not _is_number(parent, node)]
    return found


def _is_number(parent: Any, node: Any) -> bool:
    """Whether what has no graph behind a node is a single number."""
    if parent is not None or not node.name().startswith(_SCALINGS) or saved_tensors_are_hooked():
        return False
    try:
        factor = node._saved_other
    except RuntimeError:  # changed in place since, as a number is not
        return False
    return isinstance(factor, Tensor) and factor.dim() == 0


def first_input(inputs: tuple[Any, ...]) -> Tensor | None:
    """The tensor that a spike function thresholds: the first one that it is given."""
    return next((x for x in inputs if isinstance(x, torch.Tensor)), None)
