"""Spiking layers in a plain list or dictionary: they run, but are no modules of the model.

Neither `parameters()`, `to()` and `train()` reach them, nor does a watch.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from spikewatch.layers import named_modules

from .recognise import find_spiking


# Not what is derived from them: to look into that may compute something, or raise.
_PLAIN = (list, tuple, dict, OrderedDict)
_MOST_ENTRIES = 1024  # of a container; what has more is data
_DEEPEST = 2  # a list of lists
_MOST_NAMES = 6
_TELL = (
    "{names}: kept in a plain list, tuple or dictionary, and so no modules of the model. They are "
    "not watched, and model.parameters(), .to() and .train() do not reach them. Keep them in an "
    "nn.ModuleList or nn.ModuleDict, unless that is meant"
)


def why_unwatched(model: nn.Module) -> str:
    """What to tell of the spiking layers that the model has in plain containers; "" without any."""
    registered = {id(m) for m in nn.Module.modules(model)}
    names: list[str] = []
    for owner, module in named_modules(model).items():
        for attribute, value in vars(module).items():
            place = f"{owner}.{attribute}".lstrip(".")
            for name, kept in _modules_in(value, place, _DEEPEST):
                if id(kept) not in registered:
                    registered |= {id(m) for m in nn.Module.modules(kept)}
                    names += _spiking(kept, name)
    if not names:
        return ""
    told = ", ".join(map(repr, names[:_MOST_NAMES]))
    if len(names) > _MOST_NAMES:
        told += f" and {len(names) - _MOST_NAMES} more"
    return _TELL.format(names=told)


def _spiking(kept: nn.Module, name: str) -> Sequence[str]:
    found = find_spiking(kept, named={})
    return [f"{name}.{f.name}".rstrip(".") for f in found if f.kind == "spiking"]


def _modules_in(value: Any, name: str, depth: int) -> Iterator[tuple[str, nn.Module]]:
    """Modules within plain containers, with the expressions that reach them."""
    if type(value) not in _PLAIN or depth == 0 or len(value) > _MOST_ENTRIES:
        return
    for key, entry in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if isinstance(entry, nn.Module):
            yield f"{name}[{key!r}]", entry
        else:
            yield from _modules_in(entry, f"{name}[{key!r}]", depth - 1)
