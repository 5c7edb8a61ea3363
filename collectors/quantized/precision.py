"""Where in its network a layer stands: the first and the last one are best kept precise."""

import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from spikewatch.layers import named_modules
from spikewatch.observing import Counts

from .adapters import packed_shape
from .reading import WeightInstrument, Weights


@dataclass(frozen=True)
class Place:
    """A layer's place among those that hold weight matrices, embeddings among them.

    Attributes:
        first: Whether it is the first one, in the order of their definition.
        last: Whether it is the last one.
        n_model_weights: Weights of all of them.
    """

    first: bool
    last: bool
    n_model_weights: int


def places(model: nn.Module) -> dict[str, Place]:
    """The place of each layer with a weight of two or more dimensions, by name."""
    sizes = {n: size for n, m in named_modules(model).items() if (size := _n_weights(m))}
    total = sum(sizes.values())
    names = list(sizes)
    return {n: Place(n == names[0], n == names[-1], total) for n in names}


def _n_weights(module: nn.Module) -> int:
    """Weights of a module's matrix, unpacked; 0 where it has none."""
    packed, weight = packed_shape(module), _weight(module)
    if packed is not None:
        return math.prod(packed)
    return weight.numel() if weight is not None and weight.dim() >= 2 else 0


def _weight(module: nn.Module) -> Tensor | None:
    if isinstance(module, parametrize.ParametrizationList):
        return None
    if parametrize.is_parametrized(module, "weight"):
        return getattr(module.parametrizations["weight"], "original", None)  # ty: ignore[not-subscriptable, invalid-argument-type]
    weight = module._parameters.get("weight", module._buffers.get("weight"))
    if weight is None:  # under another name, or several: the largest
        own = [p for p in module._parameters.values() if p is not None and not is_lazy(p)]
        matrices = [p for p in own if p.dim() >= 2 and p.shape[0] >= 2]
        return max(matrices, key=Tensor.numel, default=None)
    return None if is_lazy(weight) else weight


class Precision(WeightInstrument):
    """Says of a quantized layer whether it is the first or the last one."""

    def read(self, weights: Weights) -> Counts | None:
        """Counters of `weights`."""
        place = weights.place
        if place is None:
            return None
        return Counts(
            {
                "weights": {
                    "is_first_layer": int(place.first),
                    "is_last_layer": int(place.last),
                    "n_model_weights": place.n_model_weights,
                }
            }
        )
