"""Which modules of a model make spikes.

In this order: a library's class, known by name; duck typing (a threshold and a state); code that
can reach a custom `autograd.Function`, or a threshold alone: a *candidate* about which the first
forward pass decides.
Output values alone are never evidence: pooling, flatten and dropout pass 0 and 1 on.
"""

import dis
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import getattr_static
from typing import Any

import torch
from torch import nn

from spikewatch.layers import Kind, named_modules, own_type

from .candidates import Evidence
from .libraries import user
from .library import Library, load_libraries, qualified_names
from .quantized.adapters import QUANTIZERS


# What `apply` of an autograd function calls, though no code says so.
_APPLIED = {"forward", "backward", "setup_context"}


_WIDTHS = ("out_features", "out_channels", "num_features", "embedding_dim")


@dataclass(frozen=True)
class Found:
    """A module that makes spikes, or may; `by` what, if it is a candidate."""

    name: str
    module: nn.Module
    library: Library
    kind: Kind
    note: str = ""
    axes: str = ""
    by: Evidence = "class"


def find_spiking(model: nn.Module, *, named: Mapping[str, str]) -> list[Found]:
    """The modules of `model` that make spikes, outermost first; nothing inside another neuron."""
    libraries = load_libraries()
    found: list[Found] = []
    for name, module in named_modules(model).items():
        if any(_inside(name, f.name) for f in found if f.kind == "spiking"):
            continue  # a part of a neuron: its surrogate, its inner recurrent layer
        if name in named:
            found.append(Found(name, module, user.LIBRARY, "spiking", "named by hand", named[name]))
        elif (hit := _recognise(name, module, libraries)) is not None:
            found.append(hit)
    return found


def output_widths(model: nn.Module) -> frozenset[int]:
    """How many outputs the layers of a model with weights have, as PyTorch's classes call it."""
    found = [vars(m).get(a) for m in nn.Module.modules(model) for a in _WIDTHS]
    return frozenset(n for n in found if isinstance(n, int))


def _inside(name: str, outer: str) -> bool:
    return outer == "" or name.startswith(f"{outer}.")


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
        return Found(name, module, user.LIBRARY, "spiking", "has a threshold and a state")
    if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
        return None
    if name.rpartition(".")[2] in QUANTIZERS:
        return None  # of a weight: its custom function rounds that
    if reaches_function(module):
        note = "custom autograd function; the first forward pass decides"
        return Found(name, module, user.LIBRARY, "candidate", note, by="code")
    # Spikes may be made by a straight-through trick, without a function. Of a block that has a
    # threshold for the neurons in it, and for no use of its own, these make the spikes.
    if _has_any(module, user.THRESHOLDS) and not module._modules:
        note = "has a threshold; the first forward pass decides"
        return Found(name, module, user.LIBRARY, "candidate", note, by="threshold")
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
    return _reaches(module, lambda thing: _is_custom_function(thing) or _is_tap(thing))


def reaches_compiled(module: nn.Module) -> bool:
    """Whether a module's own forward can reach something that `torch.compile` made."""
    return has_compiled_part(module) or _reaches(module, _is_compiled)


def has_compiled_part(module: nn.Module) -> bool:
    """Whether a module within this one is compiled, or its own forward is."""
    return any(
        (m is not module and ("_orig_mod" in m._modules or m._compiled_call_impl))
        or _is_compiled(vars(m).get("forward"))
        for m in nn.Module.modules(module)
    )  # fmt: skip


def _is_compiled(thing: Any) -> bool:
    return getattr_static(thing, "_torchdynamo_orig_callable", None) is not None


def _reaches(module: nn.Module, sought: Callable[[Any], bool], *, depth: int = 4) -> bool:
    todo: list[tuple[Any, int]] = [(own_type(module).forward, 0)]
    todo += [(v, 0) for k, v in vars(module).items() if not k.startswith("_")]
    seen: set[int] = set()
    while todo and len(seen) < 2000:
        thing, level = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if sought(thing):
            return True
        if level < depth:
            todo += [(t, level + 1) for t in _named_in(thing, own_type(module))]
    return False


def _is_custom_function(thing: Any) -> bool:
    owner = thing if isinstance(thing, type) else getattr(thing, "__self__", None)
    return (
        isinstance(owner, type)
        and issubclass(owner, torch.autograd.Function)
        and not owner.__module__.startswith("torch.")
    )


def _is_tap(thing: Any) -> bool:
    return isinstance(thing, types.FunctionType) and (
        (thing.__module__, thing.__name__) == ("spikewatch.attaching", "tap")
    )


def _named_in(thing: Any, cls: type) -> Iterator[Any]:
    """What a Python function can reach: globals, closure, methods of its class, module members."""
    thing = getattr(thing, "__func__", thing)
    if not isinstance(thing, types.FunctionType) or (thing.__module__ or "").startswith("torch."):
        return
    names = _code_names(thing.__code__)
    reached = [thing.__globals__[n] for n in names if n in thing.__globals__]
    for cell in thing.__closure__ or ():
        try:
            reached.append(cell.cell_contents)
        except ValueError:  # a cell that is not filled yet
            continue
    for holder in (*reached, cls):
        if isinstance(holder, types.ModuleType | type) and not isinstance(holder, nn.Module):
            if getattr(holder, "__name__", "").split(".")[0] == "torch":
                continue
            applied = _APPLIED if _is_custom_function(holder) else set[str]()
            reached += [vars(holder)[n] for n in names | applied if n in vars(holder)]
    yield from (getattr(r, "__func__", r) for r in reached)
    yield from reached


def names_in_code(module: nn.Module, *, depth: int = 2) -> set[str]:
    """Names that the code of a module's own forward mentions, and that of functions it calls.

    With them "@", where it multiplies matrices by that.
    """
    cls, names = own_type(module), set[str]()
    todo: list[tuple[Any, int]] = [(cls.forward, 0)]
    while todo:
        thing, level = todo.pop()
        thing = getattr(thing, "__func__", thing)
        if isinstance(thing, types.FunctionType):
            names |= _code_names(thing.__code__)
            if any(i.argrepr in ("@", "@=") for i in dis.get_instructions(thing.__code__)):
                names.add("@")
            if level < depth:
                todo += [(t, level + 1) for t in _named_in(thing, cls)]
    return names


def _code_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _code_names(constant)
    return names
