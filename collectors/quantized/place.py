"""Where in its network a layer stands, and how much of the network is ternary."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from spikewatch.layers import named_modules

from ..attributes import parametrizations
from .adapters import packed_shape


Containers = (nn.ParameterList, nn.ParameterDict)


class Census:
    """How many weights a model has, and how many of them are ternary now."""

    def __init__(self, n_weights: int) -> None:
        self.n_weights = n_weights
        self._ternary: dict[str, int] = {}

    def count(self, place: "Place", n_ternary: int) -> None:
        """Take note of how many weights of a layer are ternary now: all of them, or none."""
        self._ternary[place.key] = n_ternary

    @property
    def n_ternary(self) -> int:
        """Weights of all layers that were ternary when they were seen last."""
        return sum(self._ternary.values())


@dataclass(frozen=True)
class Place:
    """A layer's place among those that hold weight matrices, embeddings among them.

    Attributes:
        key: Name of the first layer that has the same parameter: its own, unless they are tied.
        first: Whether it is the first one, in the order of their definition.
        last: Whether it is the last one.
        census: Of the whole model.
    """

    key: str
    first: bool
    last: bool
    census: Census


def places(model: nn.Module) -> dict[str, Place]:
    """The place of each weight of two or more dimensions, by the name of its layer."""
    modules = named_modules(model)
    found: dict[str, Tensor] = {}
    sizes: dict[str, int] = {}  # of each parameter once
    keys: dict[int, str] = {}
    for name, module in modules.items():
        for layer, weight in _matrices(name, module):
            found[layer] = weight
            key = keys.setdefault(id(weight), layer)
            sizes[key] = math.prod(packed_shape(module) or weight.shape)
    census = Census(sum(sizes.values()))
    ordered = [n for n in found if not _is_around_layers(n, modules)]
    ends = (ordered[0], ordered[-1]) if ordered else ("", "")
    return {
        n: Place(keys[id(w)], first=n == ends[0], last=n == ends[1], census=census)
        for n, w in found.items()
    }


def is_matrix(x: Tensor) -> bool:
    """Whether a parameter under any name may be a weight."""
    # A leading 1 is an axis to broadcast: a table of positions, a token.
    return x.dim() >= 2 and x.shape[0] >= 2 and x.numel() >= 4 * x.shape[0]


def _matrices(name: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weights that a module keeps itself, by the names of their layers."""
    if isinstance(module, parametrize.ParametrizationList):
        return
    own = {k: p for k, p in module._parameters.items() if p is not None and not is_lazy(p)}
    parts = {k: getattr(p, "original", None) for k, p in parametrizations(module).items()}
    own |= {k: p for k, p in parts.items() if isinstance(p, Tensor)}
    buffers = dict(module._buffers.items())  # those of a ScriptModule are no dictionary
    weight = own.get("weight", buffers.get("weight"))
    if weight is not None and weight.dim() >= 2:
        yield name, weight
        return
    others = {k: p for k, p in own.items() if is_matrix(p)}
    whole = len(others) == 1 and not isinstance(module, Containers)
    for attribute, matrix in others.items():
        yield name if whole else f"{name}.{attribute}".lstrip("."), matrix


def _is_around_layers(layer: str, modules: dict[str, nn.Module]) -> bool:
    """Whether a weight is kept by a module with layers in it: in which order is not known."""
    name = layer if layer in modules else layer.rpartition(".")[0]
    parts = [m for m in modules[name].modules() if m is not modules[name]]
    return any(p is not None and p.dim() >= 2 for m in parts for p in m._parameters.values())
