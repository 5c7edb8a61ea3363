"""Attributes of the user's modules, whose own `__getattr__` or property may raise anything.

As of one that looks them up in a dictionary of settings, and raises KeyError. To ask whether there
is such an attribute is to raise nothing.
"""

from typing import Any

from torch import nn


_MISSING = object()


def read(thing: Any, name: str, default: Any = None) -> Any:
    """The attribute, or the default, where it is not there or cannot be had."""
    try:
        return getattr(thing, name, default)
    except Exception:  # noqa: BLE001 - the user's code
        return default


def has(thing: Any, name: str) -> bool:
    """Whether there is such an attribute, and it can be had."""
    return read(thing, name, _MISSING) is not _MISSING


def parametrizations(module: nn.Module) -> dict[str, nn.Module]:
    """What `torch.nn.utils.parametrize` has put before the tensors of a module, by their names."""
    held = read(module, "parametrizations")
    return dict(held.items()) if isinstance(held, nn.ModuleDict) else {}
