"""Neurons that users write themselves, read by the names that such code gives its attributes.

* Recognised elsewhere (`recognise.py`): by a threshold and a state, by the autograd graph, by hand.
* A sample starts where the state, kept as an attribute or passed to `forward`, is fresh; where its
  graph is of an earlier step, so that the call can but replace it; or where it has none, and is not
  what the latest call left behind (`left_behind.py`).
* Only attributes, buffers and parameters are read, never properties: those may compute or raise.
  A τ tells of no decay: some use 1 − 1/τ, others exp(−1/τ).
* A threshold and a decay that it does not hold are globals which its code names (`constants.py`).
* Whether a state is the potential before the reset is not known, so it is not said to be.
"""

import dis
import re
from collections import deque
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from spikewatch.layers import own_type
from spikewatch.metrics.amplitudes import ALPHA_CLAMP

from ..constants import Constants, constants_of_class
from ..library import Dynamics, Library, Membrane, Number, Reset, Start, States, first_tensor
from ..reachable import own_code
from .reading import argument, is_fresh, learnable, plain, surrogate_name


THRESHOLDS = (
    "threshold", "v_threshold", "spike_threshold", "thresh", "_threshold", "v_th", "V_th", "vth",
    "Vth", "vthr", "thre", "thr",
)  # fmt: skip
STATES = ("mem", "v", "v_mem", "vmem", "voltage_state", "membrane", "membrane_potential", "u")
_DECAYS = ("decay", "mem_decay", "v_decay")
_SQUASHES = {"sigmoid", "exp", "softplus", "tanh", "Sigmoid", "hardsigmoid"}
_CUTS = ("detach", "detach_", "data")
_SPIKES = re.compile("s|z|o|r|spk.*|spike.*|out.*|fire.*|reset.*", re.IGNORECASE)
_MOST_NODES = 32
_SURROGATES = (
    "surrogate",
    "surrogate_function",
    "spike_grad",
    "surrogate_fn",
    "act_fun",
    "spike_fn",
)
_RESETS = ("reset_mechanism", "reset_mode", "reset")
_RESET_WORDS: dict[str, Reset] = {
    "subtract": "subtract", "soft": "subtract", "zero": "zero", "hard": "zero", "none": "none",
}  # fmt: skip
_WEIGHTS = ("weight", "bias")
_SCALES = ("running_scale", "running_mean_abs", "running_abs_mean")


def _own(module: nn.Module, names: tuple[str, ...]) -> Iterator[Any]:
    """What the module itself holds under these names, in their order."""
    places = (vars(module), module._parameters, module._buffers)
    yield from (place[name] for name in names for place in places if name in place)


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
    return [s for s in taken if s is not None] or [*_own(module, STATES)]


def states_after(module: nn.Module, output: Any) -> list[Any]:
    """What may be a state that a call leaves behind: returned beside the spikes, or kept."""
    if _states_taken(module):
        return [*output] if isinstance(output, tuple | list) else []
    return [*_own(module, STATES)]


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


def dynamics_with(constants: Constants, module: nn.Module) -> Dynamics:
    """Parameters of a neuron; what its module does not hold is as its code names it."""
    words = [w for w in _own(module, _RESETS) if isinstance(w, str)]
    threshold, decay = _threshold(module), _decay(module)
    return Dynamics(
        threshold=constants.threshold if threshold is None else threshold,
        decay=constants.decay if decay is None else decay,
        decay_guessed=True,
        reset=_RESET_WORDS.get(words[0]) if words else None,
        surrogate=next((surrogate_name(s) for s in _surrogates(module)), ""),
        learnable=_learnable(module),
    )


def _dynamics(module: nn.Module) -> Dynamics:
    return dynamics_with(constants_of_class(own_type(module)), module)


def _learnable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Those of the neurons: a number, or one a channel or neuron, and no matrix of weights."""
    held = learnable(module, besides=_WEIGHTS)
    return {name: p for name, p in held.items() if sum(n > 1 for n in p.shape) <= 1}


def _threshold(module: nn.Module) -> Number | None:
    written = next((plain(t) for t in _own(module, THRESHOLDS) if _is_number(t)), None)
    if written is not None:
        return written
    # A threshold that follows its input: α times a running mean of |x|.
    factor, scale = module._parameters.get("alpha"), next(_own(module, _SCALES), None)
    if factor is None or not isinstance(scale, Tensor):
        return None
    return factor.detach().clamp(*ALPHA_CLAMP) * scale.detach()


def _surrogates(module: nn.Module) -> Iterator[Any]:
    yield from (s for s in _own(module, _SURROGATES) if s is not None)
    yield from (module._modules[n] for n in _SURROGATES if module._modules.get(n) is not None)


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor | int | float) and not isinstance(value, bool)


def _decay(module: nn.Module) -> Number | None:
    # A number beyond [0, 1] is no decay: it is a time constant in steps; or β, which names the
    # sharpness of a surrogate as well. What is a tensor is looked at once it is on the host.
    names = _DECAYS if _is_of_adaptation(module) else (*_DECAYS, "beta")
    for value in _own(module, names):
        if isinstance(value, nn.Parameter) and _is_squashed(own_type(module)):
            return None  # it is what a function makes of it that acts
        if _is_number(value) and (isinstance(value, Tensor) or 0 <= value <= 1):
            return plain(value)
    return None


def _is_of_adaptation(module: nn.Module) -> bool:
    """Whether β may be that of an adaptation, since a learnable α beside it is the membrane's."""
    factor = module._parameters.get("alpha")
    return factor is not None and next(_own(module, _SCALES), None) is None


@lru_cache(maxsize=512)
def _is_squashed(cls: type[nn.Module]) -> bool:
    """Whether the forward of a class, or a method that it names, calls what squashes a number."""
    return any(_SQUASHES.intersection(f.__code__.co_names) for f in own_code(cls))


def _membrane(module: nn.Module, output: Any) -> Membrane | None:
    spikes = first_tensor(output)
    returned = output[1] if isinstance(output, tuple | list) and len(output) > 1 else None
    held = returned if _states_taken(module) else next(_own(module, STATES), None)
    if spikes is None or not isinstance(held, Tensor):
        return None
    if held.shape != spikes.shape and held.shape != spikes.shape[1:]:
        return None
    return Membrane(held.detach(), pre_reset=False)


LIBRARY = Library(
    "user",
    is_spiking=lambda module, names: None,  # noqa: ARG005
    starts_sample=_starts_sample,
    states=States(states_before, states_after, replaces_state),
    dynamics=_dynamics,
    membrane=_membrane,
    saved="other",
)
