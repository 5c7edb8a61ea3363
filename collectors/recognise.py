"""Which modules of a model make spikes.

In this order: a library's class, known by name; duck typing (a threshold and a state); code that
can reach a custom `autograd.Function`, a *candidate* about which the first forward pass decides.
Output values alone are never evidence: pooling, flatten and dropout pass 0 and 1 on.
"""

import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import getattr_static
from typing import Any

import torch
from torch import nn

from spikewatch.layers import Kind, named_modules, own_type

from .libraries import user
from .library import Library, load_libraries, qualified_names


BY_HAND = "named by hand"
_DUCK = "has a threshold and a state"
_BY_CODE = "custom autograd function; the first forward pass decides"
# Bases from these tell nothing of whose a class is.
_NO_PACKAGES = {"torch", "builtins", "abc", "typing"}


@dataclass(frozen=True)
class Found:
    """A module that makes spikes, or may."""

    name: str
    module: nn.Module
    library: Library
    kind: Kind
    note: str = ""
    axes: str = ""

    @property
    def sure(self) -> bool:
        """Whether the class says that it makes spikes, and no look at them is needed.

        A library says so of its own classes; a class that a user derived from one may return what
        it likes, such as the potential of a readout.
        """
        cls = own_type(self.module)
        own = _package(cls) == self.library.name.replace("-", "_")
        return self.library.name != "user" and (own or not _is_derived(cls))


def find_spiking(model: nn.Module, *, named: Mapping[str, str]) -> list[Found]:
    """The modules of `model` that make spikes, outermost first; nothing inside another neuron."""
    libraries, modules = load_libraries(), named_modules(model)
    hits: dict[str, Found] = {}
    for name, module in modules.items():
        if name in named:
            by_hand = Found(name, module, user.LIBRARY, "spiking", BY_HAND, named[name])
            hits[name] = by_hand
        elif (hit := _recognise(name, module, libraries)) is not None:
            parent = modules.get(name.rpartition(".")[0]) if name else None
            if hit.kind == "spiking" or parent is None or not _is_part(module, parent, libraries):
                hits[name] = hit
    for name, hit in list(hits.items()):
        if _is_network(hit, hits):
            del hits[name]
            if (candidate := _candidate(name, hit.module)) is not None:
                hits[name] = candidate
    neurons = [hit.name for hit in hits.values() if hit.kind == "spiking"]
    # A part of a neuron is none: its surrogate, its inner recurrent layer.
    return [
        hits[name]
        for name in modules
        if name in hits and not any(_within(name, n) for n in neurons)
    ]


def _is_network(hit: Found, hits: Mapping[str, Found]) -> bool:
    """Whether what has a threshold and a state is a network of neurons that shares them."""
    if hit.note != _DUCK:
        return False
    parts = [m for m in nn.Module.modules(hit.module) if m is not hit.module]
    if hit.name == "" and any(
        p.dim() > 1 for m in parts for p in m._parameters.values() if p is not None
    ):
        return True
    return any(h.kind == "spiking" and _within(n, hit.name) for n, h in hits.items())


def _is_part(module: nn.Module, parent: nn.Module, libraries: list[Library]) -> bool:
    """Whether a library's module is a part of one that the library knows to make no spikes.

    Such is the surrogate of a readout which does not fire.
    """
    names = qualified_names(type(parent))
    known = next((k for x in libraries if (k := x.is_spiking(parent, names)) is not None), None)
    return known is False and _package(own_type(module)) in {_package(c) for c in _bases(parent)}


def _is_derived(cls: type) -> bool:
    """Whether a class is derived from one of another package, torch's aside."""
    others = {_package(c) for c in cls.__mro__[1:]} - _NO_PACKAGES
    return bool(others) and _package(cls) not in others


def _bases(module: nn.Module) -> list[type]:
    return [c for c in type(module).__mro__ if _package(c) not in _NO_PACKAGES]


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _within(name: str, outer: str) -> bool:
    return name != outer and (outer == "" or name.startswith(f"{outer}."))


def _recognise(name: str, module: nn.Module, libraries: list[Library]) -> Found | None:
    names = qualified_names(type(module))
    for library in libraries:
        known = library.is_spiking(module, names)
        if known is not None:
            return Found(name, module, library, "spiking", library.note) if known else None
    if own_type(module).__module__.startswith("torch."):
        return None
    keeps_state = _has_any(module, user.STATES) or user.takes_state(module)
    if keeps_state and _has_any(module, user.THRESHOLDS):
        return Found(name, module, user.LIBRARY, "spiking", _DUCK)
    return _candidate(name, module)


def _candidate(name: str, module: nn.Module) -> Found | None:
    if not isinstance(module, nn.Linear | nn.modules.conv._ConvNd) and reaches_function(module):
        return Found(name, module, user.LIBRARY, "candidate", _BY_CODE)
    return None


def _has_any(module: nn.Module, attributes: tuple[str, ...]) -> bool:
    # Not hasattr: a property of the user may compute something, or raise.
    places = (vars(module), module._parameters, module._buffers)
    return any(a in place for a in attributes for place in places)


def reaches_function(module: nn.Module) -> bool:
    """Whether the code of a module's own forward can reach a custom `autograd.Function` or a tap.

    Reads names in the bytecode of `forward`, of the functions and methods that it names, and of
    what the instance holds; nothing is run.
    """
    return any(_function(thing) is not None or _is_tap(thing) for thing in _reached(module))


def reaches_tap(module: nn.Module) -> bool:
    """Whether the code of a module's own forward can reach `spikewatch.tap`."""
    return any(map(_is_tap, _reached(module)))


def functions_of(module: nn.Module) -> frozenset[Any]:
    """The custom `autograd.Function`s that the code of a module's own forward can reach."""
    return frozenset(f for thing in _reached(module) if (f := _function(thing)) is not None)


def reaches_compiled(module: nn.Module) -> bool:
    """Whether a module's own forward can reach something that `torch.compile` made."""
    parts = [m for m in nn.Module.modules(module) if m is not module]
    return any("_orig_mod" in m._modules or m._compiled_call_impl for m in parts) or any(
        getattr_static(thing, "_torchdynamo_orig_callable", None) is not None
        for thing in _reached(module)
    )


def _reached(module: nn.Module, *, depth: int = 4) -> Iterator[Any]:
    todo: list[tuple[Any, int]] = [(own_type(module).forward, 0)]
    todo += [(v, 0) for k, v in vars(module).items() if not k.startswith("_")]
    seen: set[int] = set()
    while todo and len(seen) < 2000:
        thing, level = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        yield thing
        if level < depth:
            todo += [(t, level + 1) for t in _named_in(thing, own_type(module))]


def _function(thing: Any) -> Any:
    """The custom autograd function that a thing is, or is the `apply` of."""
    owner = thing if isinstance(thing, type) else getattr(thing, "__self__", None)
    custom = (
        isinstance(owner, type)
        and issubclass(owner, torch.autograd.Function)
        and not owner.__module__.startswith("torch.")
    )
    return owner if custom else None


def _is_tap(thing: Any) -> bool:
    return isinstance(thing, types.FunctionType) and (
        (thing.__module__, thing.__name__) == ("spikewatch.attaching", "tap")
    )


def _named_in(thing: Any, cls: type) -> Iterator[Any]:
    """What a Python function can reach: globals, closure, methods of its class, module members.

    Of a callable object that is no module, what is called: `surrogate = ATan(alpha=2.0)`.
    """
    thing = getattr(thing, "__func__", thing)
    if not isinstance(thing, types.FunctionType):
        called = ("__call__", "apply", "forward")
        if type(thing).__module__.partition(".")[0] not in ("torch", "builtins"):
            yield from (
                f
                for n in called
                if isinstance(f := getattr_static(type(thing), n, None), types.FunctionType)
            )
        return
    if (thing.__module__ or "").startswith("torch."):
        return
    names = _code_names(thing.__code__)
    reached = [thing.__globals__[n] for n in names if n in thing.__globals__]
    for cell in thing.__closure__ or ():
        try:
            reached.append(cell.cell_contents)
        except ValueError:  # a cell that is not filled yet
            continue
    for holder in (*reached, *(c for c in cls.__mro__ if _package(c) not in _NO_PACKAGES)):
        if isinstance(holder, types.ModuleType | type) and not isinstance(holder, nn.Module):
            if getattr(holder, "__name__", "").split(".")[0] == "torch":
                continue
            reached += [vars(holder)[n] for n in names if n in vars(holder)]
            if holder is sys.modules.get("spikewatch") and "tap" in names:
                reached.append(holder.tap)  # it is loaded when it is first used
    yield from (getattr(r, "__func__", r) for r in reached)
    yield from reached


def names_in_code(module: nn.Module, *, depth: int = 2) -> set[str]:
    """Names that the code of a module's own forward mentions, and that of functions it calls."""
    cls, names = own_type(module), set[str]()
    todo: list[tuple[Any, int]] = [(cls.forward, 0)]
    while todo:
        thing, level = todo.pop()
        thing = getattr(thing, "__func__", thing)
        if isinstance(thing, types.FunctionType):
            names |= _code_names(thing.__code__)
            if level < depth:
                todo += [(t, level + 1) for t in _named_in(thing, cls)]
    return names


def _code_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _code_names(constant)
    return names
