"""Which weights feed a function: what a layer that is no module is called after."""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from spikewatch.layers import named_modules


_MOST_NODES = 256
# What multiplies with a weight: its result is no weight any more.
_PRODUCTS = ("mm", "Mm", "Convolution", "Linear", "Dot", "Mv", "Embedding", "EinsumBackward")
_WEIGHTS = ("weight", "kernel", "original", "W")


class Source(NamedTuple):
    """Where an input comes from.

    Attributes:
        name: The layer whose weights are nearest to it, or the parameter itself; "" if none is.
        is_weight: Whether it is a weight, and nothing that was made with one.
    """

    name: str
    is_weight: bool


NOWHERE = Source("", is_weight=False)


def names_of_weights(model: nn.Module) -> dict[int, str]:
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


def source_of(x: Tensor, names: Mapping[int, str]) -> Source:
    """The weights nearest to a tensor in its autograd graph.

    Args:
        x: What a function was given.
        names: Of the model's weights, by the ids of their parameters.
    """
    if x.grad_fn is None:
        name = names.get(id(x), "") if isinstance(x, nn.Parameter) else ""
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
            elif (name := names.get(id(variable))) is not None:
                return Source(name, not multiplied and variable.shape == x.shape)
    return NOWHERE


def first_input(inputs: tuple[Any, ...]) -> Tensor | None:
    """The tensor that a spike function thresholds: the first one that it is given."""
    return next((x for x in inputs if isinstance(x, torch.Tensor)), None)
