"""What the code of a module can reach, read from names in its bytecode; nothing is run."""

import ast
import dis
import inspect
import sys
import textwrap
import types
from collections.abc import Collection, Iterator
from functools import lru_cache
from inspect import getattr_static
from typing import Any

import torch
from torch import nn

from spikewatch.layers import own_type

from .wrapped import behind


# Bases from these tell nothing of whose a class is.
NO_PACKAGES = {"torch", "builtins", "abc", "typing"}
# What `apply` of an autograd function calls, though no code says so.
_APPLIED = {"forward", "backward", "setup_context"}
_METHODS = (types.MethodType, types.BuiltinMethodType)
_WRAPPED = (types.MethodType, staticmethod, classmethod)


def package(cls: type) -> str:
    """The package that a class comes from."""
    return cls.__module__.partition(".")[0]


def reaches_function(module: nn.Module) -> bool:
    """Whether the code of a module's own forward can reach a custom `autograd.Function` or a tap.

    Reads names in the bytecode of `forward`, of the functions and methods that it names, and of
    what the instance holds; nothing is run.
    """
    return any(autograd_function(thing) is not None or _is_tap(thing) for thing in _reached(module))


def reaches_tap(module: nn.Module) -> bool:
    """Whether the code of a module's own forward can reach `spikewatch.tap`."""
    return any(map(_is_tap, _reached(module)))


def functions_of(module: nn.Module) -> frozenset[Any]:
    """The custom `autograd.Function`s that the code of a module's own forward can reach."""
    return frozenset(f for thing in _reached(module) if (f := autograd_function(thing)) is not None)


def functions_reached(module: nn.Module) -> list[types.FunctionType | torch.jit.ScriptFunction]:
    """Functions, of Python's or scripted, that the code of a module's own forward can reach."""
    kinds = (types.FunctionType, torch.jit.ScriptFunction)
    return [thing for thing in _reached(module) if isinstance(thing, kinds)]


def own_code(cls: type[nn.Module]) -> list[types.FunctionType]:
    """The forward of a class, and its methods and properties that this names."""
    own = getattr(cls, "forward", None)
    if not isinstance(own, types.FunctionType):
        return []
    named = (getattr_static(cls, name, None) for name in own.__code__.co_names)
    methods = (m.fget if isinstance(m, property) else m for m in named)
    return [own, *(m for m in methods if isinstance(m, types.FunctionType))]


def own_forward(function: Any) -> Any:
    """An autograd function's forward as its author wrote it, whoever listens."""
    return inspect.unwrap(function.forward)


def source_tree(function: Any) -> ast.FunctionDef | None:
    """The source of a function; None where there is none, or it is not that of the function."""
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except Exception:  # noqa: BLE001 - its file is gone, or another one now
        return None
    if not isinstance(tree, ast.FunctionDef):
        return None
    return tree if [a.arg for a in tree.args.args] == arguments(function) else None


def arguments(function: types.FunctionType) -> list[str]:
    """Names of what a function takes by position."""
    return [*function.__code__.co_varnames[: function.__code__.co_argcount]]


def reaches_compiled(module: nn.Module) -> bool:
    """Whether a module's own forward can reach something that `torch.compile` made."""
    return has_compiled_part(module) or any(map(_is_compiled, _reached(module)))


def has_compiled_part(module: nn.Module) -> bool:
    """Whether a module within this one is compiled, or its own forward is."""
    return any(
        (m is not module and ("_orig_mod" in m._modules or m._compiled_call_impl))
        or _is_compiled(vars(m).get("forward"))
        for m in nn.Module.modules(module)
    )


def _is_compiled(thing: Any) -> bool:
    return getattr_static(thing, "_torchdynamo_orig_callable", None) is not None


def _reached(module: nn.Module, *, depth: int = 4) -> Iterator[Any]:
    names = names_in_code(module) | _words(own_type(module))
    todo: list[tuple[Any, int]] = [(getattr(own_type(module), "forward", None), 0)]
    todo += [(v, 0) for k, v in vars(module).items() if k in names or not k.startswith("_")]
    todo += [(f, depth) for f in _functions_of_parts(module)]
    seen: set[int] = set()
    while todo and len(seen) < 2000:
        thing, level = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        yield thing
        if level < depth:
            todo += [(t, level + 1) for t in _named_in(thing, own_type(module), names)]


def _words(cls: type[nn.Module]) -> set[str]:
    """Words in the code of a class, which may be names: `getattr(self, "_spike")`."""
    return {c for f in own_code(cls) for c in f.__code__.co_consts if isinstance(c, str)}


def _functions_of_parts(module: nn.Module) -> Iterator[Any]:
    """Functions in the classes of a module's parts that its forward names: `lif.sg_function(u)`."""
    code = getattr(getattr(own_type(module), "forward", None), "__code__", None)
    names = code_names(code) if isinstance(code, types.CodeType) else set[str]()
    classes = {own_type(m) for m in nn.Module.modules(module) if m is not module}
    own = {c for part in classes for c in part.__mro__ if package(c) not in NO_PACKAGES}
    for cls in own - {*own_type(module).__mro__}:
        held = [vars(cls)[n] for n in names if n in vars(cls)]
        held = [x.__func__ if isinstance(x, staticmethod) else x for x in held]
        yield from (thing for thing in held if autograd_function(thing) is not None)


def autograd_function(thing: Any) -> Any:
    """The custom autograd function that a thing is, or is the `apply` of."""
    owner = thing.__self__ if isinstance(thing, _METHODS) else thing
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


def _named_in(thing: Any, cls: type, names: Collection[str] = ()) -> Iterator[Any]:
    """What a Python function can reach: globals, closure, methods of its class, module members.

    Of anything else, what stands behind it: `surrogate = ATan(alpha=2.0)`.
    """
    thing = _function_in(thing)
    if not isinstance(thing, types.FunctionType):
        yield from behind(thing, names)
        return
    if (thing.__module__ or "").startswith("torch."):
        return
    names = code_names(thing.__code__)
    reached = [thing.__globals__[n] for n in names if n in thing.__globals__]
    for cell in thing.__closure__ or ():
        try:
            reached.append(cell.cell_contents)
        except ValueError:  # a cell that is not filled yet
            continue
    for holder in (*reached, *(c for c in cls.__mro__ if package(c) not in NO_PACKAGES)):
        if isinstance(holder, types.ModuleType | type) and not isinstance(holder, nn.Module):
            if getattr(holder, "__name__", "").split(".")[0] == "torch":
                continue
            applied = _APPLIED if autograd_function(holder) is not None else set[str]()
            reached += [vars(holder)[n] for n in names | applied if n in vars(holder)]
            if holder is sys.modules.get("spikewatch") and "tap" in names:
                reached.append(holder.tap)  # it is loaded when it is first used
    yield from map(_function_in, reached)
    yield from reached


def _function_in(thing: Any) -> Any:
    """The function that a method, or what makes one of it, is made of."""
    return thing.__func__ if isinstance(thing, _WRAPPED) else thing


def names_in_code(module: nn.Module) -> frozenset[str]:
    """Names that the code of a module's own forward mentions, and that of functions it calls.

    With them "@", where it multiplies matrices by that.
    """
    return _names_in_code(own_type(module))


@lru_cache(maxsize=512)
def _names_in_code(cls: type[nn.Module], depth: int = 2) -> frozenset[str]:
    names = set[str]()
    todo: list[tuple[Any, int]] = [(getattr(cls, "forward", None), 0)]
    while todo:
        thing, level = todo.pop()
        thing = _function_in(thing)
        if isinstance(thing, types.FunctionType):
            names |= code_names(thing.__code__)
            if any(i.argrepr in ("@", "@=") for i in dis.get_instructions(thing.__code__)):
                names.add("@")
            if level < depth:
                todo += [(t, level + 1) for t in _named_in(thing, cls)]
    return frozenset(names)


def code_names(code: types.CodeType) -> set[str]:
    """Names that a piece of bytecode mentions, and the functions written within it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= code_names(constant)
    return names
