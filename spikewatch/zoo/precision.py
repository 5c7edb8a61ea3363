"""Mixed precision: which layers of a network become ternary.

The first layer meets continuous input, the last makes the class scores; both hold few weights and
feel quantization most. That they be left out is custom, not law: BitNet keeps embedding and head in
full precision, but fully ternary networks have been trained.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from .quantized_linear import QuantizedLinear
from .ternary_linear import EightBitLinear, TernaryLinear


Make = Callable[[int, int], nn.Module]


def ternarize_middle(
    net: nn.Module,
    *,
    make: Make = TernaryLinear,
    ends: Literal["float", "8-bit"] = "float",
) -> float:
    """Replace every `nn.Linear` of a network, but the first and the last, by a ternary layer.

    Args:
        net: Changed in place. Layers are in the order of their definition.
        make: Makes the layer for (in_features, out_features). Where it has a `weight` of its own,
            that starts with the weight of the layer which it replaces; `bias` likewise.
        ends: Precision of the first and the last layer.

    Returns:
        Share of the weights of all these layers that are ternary now.

    Raises:
        ValueError: There are fewer than three such layers.
    """
    found = {name: m for name, m in net.named_modules() if type(m) is nn.Linear}
    if len(found) < 3:
        raise ValueError(
            f"{type(net).__name__} has {len(found)} plain nn.Linear; without the first and the "
            "last none is left to be ternary. Give it three or more."
        )
    first, *middle, last = found
    for name in middle:
        _replace(net, name, make)
    if ends == "8-bit":
        for name in (first, last):
            _replace(net, name, EightBitLinear)
    n_weights = {name: layer.weight.numel() for name, layer in found.items()}
    return sum(n_weights[name] for name in middle) / sum(n_weights.values())


@torch.no_grad()
def _replace(net: nn.Module, name: str, make: Make) -> None:
    parent, _, child = name.rpartition(".")
    old = net.get_submodule(name)
    new = make(old.in_features, old.out_features)  # ty: ignore[invalid-argument-type]
    for part in ("weight", "bias"):
        mine, its = getattr(new, part, None), getattr(old, part)
        if mine is not None and its is not None:
            mine.copy_(its)
        elif mine is not None and its is None:
            mine.zero_()
    if isinstance(new, QuantizedLinear):
        new.fit_scales()
    setattr(net.get_submodule(parent), child, new)
