"""What stands behind a thing that code calls, and that is no function itself; nothing is run.

A surrogate may be bound by `functools.partial`, cached, given by a property, kept in a dictionary
of surrogates or in an object with settings.
"""

import functools
import types
from collections.abc import Collection, Iterator
from inspect import getattr_static
from typing import Any

from torch import Tensor, nn


_CALLED = ("__call__", "apply", "forward")
_BOUND = (functools.partial, functools.partialmethod)
_MOST = 64  # things in a container: a longer one is data


def behind(thing: Any, names: Collection[str]) -> Iterator[Any]:
    """What may be called where code calls a thing, or takes something out of it.

    Args:
        thing: Anything but a function of Python's.
        names: Those that the code mentions: what it may take out of an object.
    """
    if isinstance(thing, _BOUND):
        yield from (thing.func, *thing.args, *thing.keywords.values())
    elif isinstance(thing, property):
        yield thing.fget
    elif isinstance(thing, functools.cached_property):
        yield thing.func
    elif isinstance(thing, dict | list | tuple):
        held = thing.values() if isinstance(thing, dict) else thing
        if len(held) <= _MOST:
            yield from (x for x in held if not isinstance(x, nn.Module | Tensor))
    elif isinstance(thing, types.ModuleType | type):
        return  # which is asked for what code names
    elif (cached := getattr_static(thing, "__wrapped__", None)) is not None:
        yield cached
    else:
        yield from _of_object(thing, names)


def _of_object(thing: Any, names: Collection[str]) -> Iterator[Any]:
    """Of an object: its methods that are called, or named, and what these and the code name."""
    cls = type(thing)
    if cls.__module__.partition(".")[0] in ("torch", "builtins"):
        return
    methods = [getattr_static(cls, name, None) for name in {*_CALLED, *names}]
    methods = [m for m in methods if isinstance(m, types.FunctionType)]
    yield from methods
    if isinstance(thing, nn.Module):
        return  # a layer, which is asked itself
    named = {*names}.union(*(m.__code__.co_names for m in methods))
    yield from (x for name, x in _attributes(thing).items() if name in named)


def _attributes(thing: Any) -> dict[str, Any]:
    try:
        return {**object.__getattribute__(thing, "__dict__")}
    except AttributeError:  # it has slots
        return {}
