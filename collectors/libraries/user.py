"""Neurons that users write themselves, read by the names that such code gives its attributes.

* Recognised elsewhere (`recognise.py`): by a threshold and a state, by the autograd graph, by hand.
* A sample starts where the state, kept as an attribute or passed to `forward`, is fresh; where its
  graph is of an earlier step, so that the call can but replace it; or where it has none, and is not
  what the latest call left behind (`samples/left_behind.py`).
* Threshold, decay and other numbers are read by their names (`own_numbers.py`).
* Whether a state is the potential before the reset is not known, so it is not said to be.
"""

import dis
import re
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from spikewatch.layers import own_type

from ..library import Library, Membrane, Start, States, first_tensor
from ..reachable import own_code
from .own_numbers import dynamics, held_by
from .reading import argument, is_fresh


STATES = ("mem", "v", "v_mem", "vmem", "voltage_state", "membrane", "membrane_potential", "u")
_CUTS = ("detach", "detach_", "data")
_SPIKES = re.compile("s|z|o|r|spk.*|spike.*|out.*|fire.*|reset.*", re.IGNORECASE)
_MOST_NODES = 32


def _starts_sample(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Start:
    drive = args[0] if args else next(iter(kwargs.values()), None)
    states = states_before(module, args, kwargs)
    if not states:
        return True if _states_taken(module) else None  # called without the state that it takes
    if replaces_state(module, args, kwargs):
        return True
    return is_fresh(states[0], drive=drive, rest=_rest(states[0], drive))


def _rest(state: Any, drive: Any) -> float | Tensor:
    """Where the state rests, if it does: at -65 mV or anywhere, it is the same everywhere then."""
    if not isinstance(state, Tensor) or not state.numel():
        return 0.0
    is_all = state.numel() == 1 and not (isinstance(drive, Tensor) and drive.numel() > 1)
    return 0.0 if is_all else state.detach()[(0,) * state.dim()]


def states_before(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """The states that a call begins with: those passed to it, or those kept."""
    taken = (argument(module, args, kwargs, name) for name in _states_taken(module))
    return [s for s in taken if s is not None] or [*held_by(module, STATES)]


def states_after(module: nn.Module, output: Any) -> list[Any]:
    """What may be a state that a call leaves behind: returned beside the spikes, or kept."""
    if _states_taken(module):
        return [*output] if isinstance(output, tuple | list) else []
    return [*held_by(module, STATES)]


def replaces_state(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> bool | None:
    """Whether a call can but replace its state, whose graph a backward pass has freed.

    `forward` itself cuts the graph of many a state, and goes on with it: there it is not known.

    Returns:
        None where the graph does not tell; in a step's first call it is that of an earlier step.
    """
    states = states_before(module, args, kwargs)
    graph = states[0].grad_fn if states and isinstance(states[0], Tensor) else None
    return False if graph is None or _cuts(own_type(module)) else _is_freed(graph)


def _is_freed(graph: Any) -> bool | None:
    """Told by the nearest custom function, which is that of the spikes in the reset."""
    todo, seen = deque([graph]), {graph}
    while todo and len(seen) < _MOST_NODES:
        node = todo.popleft()
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            try:
                return node._raw_saved_tensors is None  # nothing is unpacked
            except RuntimeError:
                return True
        parents = [parent for parent, _ in node.next_functions if parent not in (None, *seen)]
        todo.extend(parents)
        seen.update(parents)
    return None


@lru_cache(maxsize=512)
def _cuts(cls: type[nn.Module]) -> bool:
    """Whether the forward of a class detaches something that may be a state."""
    for function in own_code(cls):
        before = None
        for instruction in dis.get_instructions(function):
            if instruction.argval in _CUTS and (before is None or _may_be_state(before)):
                return True
            if instruction.argval == "no_grad":
                return True
            before = instruction
    return False


def _may_be_state(loaded: dis.Instruction) -> bool:
    if loaded.opname.startswith(("CALL", "PRECALL", "BINARY_OP")):
        return False  # what was just computed
    return not (isinstance(loaded.argval, str) and _SPIKES.fullmatch(loaded.argval))


def takes_state(module: nn.Module) -> bool:
    """Whether a state, or what is named so, is a parameter of the module's forward."""
    return bool(set(STATES).intersection(_forward_names(module)))


def _states_taken(module: nn.Module) -> list[str]:
    taken = _forward_names(module)[1:]  # the first one is the input, which some call v or u
    return [name for name in STATES if name in taken]


def _forward_names(module: nn.Module) -> tuple[str, ...]:
    code = getattr(getattr(type(module), "forward", None), "__code__", None)
    return code.co_varnames[1 : code.co_argcount] if code is not None else ()


def _membrane(module: nn.Module, output: Any) -> Membrane | None:
    spikes = first_tensor(output)
    returned = output[1] if isinstance(output, tuple | list) and len(output) > 1 else None
    held = returned if _states_taken(module) else next(held_by(module, STATES), None)
    if spikes is None or not isinstance(held, Tensor) or held.is_complex():
        return None  # of an oscillator the code says which part meets the threshold
    if held.shape != spikes.shape and held.shape != spikes.shape[1:]:
        return None
    return Membrane(held.detach(), pre_reset=False)


LIBRARY = Library(
    "user",
    is_spiking=lambda module, names: None,  # noqa: ARG005
    starts_sample=_starts_sample,
    states=States(states_before, states_after, replaces_state),
    dynamics=dynamics,
    membrane=_membrane,
    saved="other",
)
