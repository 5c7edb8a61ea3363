"""Modules in a plain list, tuple or dictionary: they run, but are no modules of the model.

Neither `parameters()`, `to()` and `train()` reach them, nor does a watch.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

from .layers import named_modules


# Not what is derived from them: to look into that may compute something, or raise.
_PLAIN = (list, tuple, dict, OrderedDict)
_MOST_ENTRIES = 1024  # of a container; what has more is data
_DEEPEST = 3  # a list of lists of lists
# Where torch keeps what it knows of a module.
_TORCHS_OWN = frozenset(vars(nn.Module()))


class Unregistered(NamedTuple):
    """A module that torch does not know of.

    Attributes:
        attribute: Name of the container: that of its owner in the model, and of the attribute.
        name: The same, with what leads to the module in it: `blocks[0]`, `heads['a']`.
        container: `list`, `tuple`, `dict` or `OrderedDict`.
        module: The module.
    """

    attribute: str
    name: str
    container: str
    module: nn.Module


def unregistered(model: nn.Module) -> Iterator[Unregistered]:
    """The modules that a model keeps in plain containers only, each of them once."""
    known = {id(m) for m in nn.Module.modules(model)}
    for owner, module in named_modules(model).items():
        for key, value in vars(module).items():
            if key in _TORCHS_OWN:
                continue
            attribute = f"{owner}.{key}".lstrip(".")
            for name, kept in _modules_in(value, attribute, _DEEPEST):
                if id(kept) not in known:
                    known |= {id(m) for m in nn.Module.modules(kept)}
                    yield Unregistered(attribute, name, type(value).__name__, kept)


def _modules_in(value: Any, name: str, depth: int) -> Iterator[tuple[str, nn.Module]]:
    """Modules within plain containers, with the expressions that reach them."""
    if type(value) not in _PLAIN or depth == 0 or len(value) > _MOST_ENTRIES:
        return
    for key, entry in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if isinstance(entry, nn.Module):
            yield f"{name}[{key!r}]", entry
        else:
            yield from _modules_in(entry, f"{name}[{key!r}]", depth - 1)
