"""Which layers have, or may come to have, quantized weights."""

from collections.abc import Mapping, Sequence

from torch import nn
from torch.nn.utils import parametrize

from spikewatch.layers import named_modules, own_type

from ..levels import ternary_granularity
from .observer import WeightObserver
from .precision import places


_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)
_LIBRARIES_OF_PLAIN_LAYERS = ("torch.", "spikingjelly.", "snntorch.")


def find(
    model: nn.Module,
    *,
    named: Mapping[str, str],  # noqa: ARG001 - layers named by hand are spiking ones
    taken: frozenset[str],
) -> Sequence[WeightObserver]:
    """An observer for each Linear or Conv layer whose weight is, or may become, ternary."""
    where = places(model)
    return [
        WeightObserver(name, module, place=where.get(name))
        for name, module in named_modules(model).items()
        if name not in taken and isinstance(module, _WEIGHTED) and _may_be_ternary(module)
    ]


def _may_be_ternary(module: nn.Module) -> bool:
    if parametrize.is_parametrized(module, "weight"):
        return True
    if not own_type(module).__module__.startswith(_LIBRARIES_OF_PLAIN_LAYERS):
        return True
    weight = module._parameters.get("weight")
    # Sharded weights are looked at where they are: asking for all of them is a collective.
    weight = getattr(weight, "_local_tensor", weight)
    # Data-swap training (TTQ) and packed inference keep ternary weights in the parameter itself.
    return (
        weight is not None
        and not weight.is_meta
        and weight.numel() > 0
        and bool((weight == 0).any())
        and ternary_granularity(weight) is not None
    )
