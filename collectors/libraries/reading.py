"""What the libraries' files share: reading names, states and parameters off a module.

Nothing here waits for a GPU: values are looked at on the CPU only.
"""

import types
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ..attributes import read
from ..library import Start, qualified_names


# A fresh state is told from one that decayed by its first elements; only zeros are read to the end.
_GLANCE = 64


def short_names(module: nn.Module) -> frozenset[str]:
    """Names of a module's class and its bases, without their packages."""
    return _short_names(type(module))


@lru_cache(maxsize=512)
def _short_names(cls: type) -> frozenset[str]:
    return frozenset(name.rpartition(".")[2] for name in qualified_names(cls))


def argument(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str) -> Any:
    """What a forward call was given as the parameter `name`, by position or by keyword, or None."""
    if name in kwargs:
        return kwargs[name]
    position = _position(type(module), name)
    return args[position] if position is not None and position < len(args) else None


@lru_cache(maxsize=512)
def _position(cls: type, name: str) -> int | None:
    code = getattr(getattr(cls, "forward", None), "__code__", None)
    names = code.co_varnames[1 : code.co_argcount] if code is not None else ()
    return names.index(name) if name in names else None


def is_fresh(state: Any, *, drive: Any = None, rest: float | Tensor = 0.0) -> Start:
    """Whether a state is that before the first time step of a sample.

    None yet, empty, a leaf, or at rest everywhere and without a history in the autograd graph. A
    state that was detached, as truncated backpropagation through time does, is not at rest. But
    where nothing makes a graph, a layer is at rest as well until the first spike has reached it.

    Args:
        state: The state that a forward call starts from.
        drive: Input of that call.
        rest: Where the membrane potential rests.

    Returns:
        None where it cannot be told without waiting for a GPU: under `no_grad`, or behind an
        input without gradient. Elsewhere on a GPU a detached state counts as fresh.
    """
    if not isinstance(state, Tensor) or state.numel() == 0 or isinstance(state, nn.Parameter):
        return True
    if state.grad_fn is not None:
        return False
    graph = torch.is_grad_enabled() and isinstance(drive, Tensor) and drive.requires_grad
    if state.device.type != "cpu":
        return True if graph else None
    if not _all_at(state, rest):
        return False
    return True if graph else "at rest"


def _all_at(state: Tensor, rest: float | Tensor) -> bool:
    if isinstance(rest, Tensor) and rest.numel() > 1:
        return torch.equal(state, rest.expand_as(state))
    state = state.detach()
    return not (state.flatten()[:_GLANCE] != rest).any() and not (state != rest).any()


def learnable(module: nn.Module, *, besides: Iterable[str] = ()) -> dict[str, nn.Parameter]:
    """Trainable parameters of the module itself, not of its submodules; weights are left out."""
    left_out = set(besides)
    return {
        name: parameter
        for name, parameter in module._parameters.items()
        if parameter is not None and parameter.requires_grad and name not in left_out
    }


def plain(value: Any) -> Any:
    """A parameter's value without its graph; numbers as they are."""
    return value.detach() if isinstance(value, Tensor) else value


def surrogate_name(surrogate: Any) -> str:
    """Name of a surrogate gradient with its numbers: `atan(alpha=2)`, `Sigmoid(alpha=4)`.

    Reads functions with closures, as snnTorch makes them, `autograd.Function`s and their `apply`,
    modules and data classes.
    """
    if surrogate is None:
        return ""
    if isinstance(surrogate, str):
        return surrogate
    owner = read(surrogate, "__self__")
    if isinstance(owner, type):  # Function.apply
        return owner.__name__
    if isinstance(surrogate, type):
        return surrogate.__name__
    function = read(surrogate, "__func__", surrogate)
    if isinstance(function, types.FunctionType):
        outer, _, inner = function.__qualname__.partition(".<locals>")
        name = (outer if inner else function.__name__).rpartition(".")[2]
        return with_numbers(name, _closure(function))
    held = {k: v for k, v in _held(surrogate).items() if not k.startswith("_")}
    return with_numbers(type(surrogate).__name__, held)


def with_numbers(name: str, values: Mapping[str, Any]) -> str:
    """`name(key=number, …)` of those values that are numbers, or tensors of one on the CPU."""
    numbers = {k: n for k, v in values.items() if (n := _number(v)) is not None}
    return name + (f"({', '.join(f'{k}={n:g}' for k, n in numbers.items())})" if numbers else "")


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor) and value.numel() == 1 and value.device.type == "cpu":
        return float(value.detach())
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _held(thing: Any) -> Mapping[str, Any]:
    held = dict(read(thing, "__dict__", {}))
    if isinstance(thing, nn.Module):
        held |= {**thing._parameters, **thing._buffers}
    return held


def _closure(function: types.FunctionType) -> dict[str, Any]:
    names, cells = function.__code__.co_freevars, function.__closure__ or ()
    values = {}
    for name, cell in zip(names, cells, strict=True):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    return values
