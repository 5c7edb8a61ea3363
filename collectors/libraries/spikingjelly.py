"""SpikingJelly: 2.0, 0.0.0.0.14 (`activation_based`) and 0.0.0.0.12 (`clock_driven`).

* Recognised by the module that a class on the MRO stands in: many neurons of 2.0 (PSN, GatedLIF,
  FewSpike, ILC, …) do not derive from `BaseNode`.
* Returns the spikes alone. Step mode "s": called for each time step, [B, *]; "m" (and the classes
  `MultiStep…`, PSN, ILC, noisy ones, which know nothing else): the sequence, [T, B, *].
* A sample starts where no memory holds a tensor: `reset_net` makes them floats or None again.
* θ is `v_threshold`. Decays by 1 − 1/τ, or by a factor of its own; ParametricLIF by 1 − sigmoid(w).
* Of a user's class that stands for as long as the library's own code acts by it (`own_steps.py`):
  attributes of the base class may be no more than what its constructor asked for.
* `v` is the potential after the reset, of the last time step, or of all with `store_v_seq`. A reset
  by subtraction is undone, s·θ is added; one to a value is final.
* Left out: `NonSpiking…` (leaky integrators of the readout), all in `layer`, and `LIAFNode`, but
  where it gives relu(u − θ), a graded spike.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spikewatch.layers import own_type

from ..attributes import has, read
from ..library import Dynamics, Library, Membrane, Number, Reset, first_tensor, saved_in
from .own_steps import OwnSteps, own_steps
from .reading import learnable, plain, short_names, surrogate_name


_PACKAGES = (
    "spikingjelly.activation_based.neuron",
    "spikingjelly.clock_driven.neuron",
)
# Weight layers and containers, some with autograd functions of their own, that pass spikes on.
_LAYERS = ("spikingjelly.activation_based.layer", "spikingjelly.clock_driven.layer")
_GATED_CELLS = frozenset(
    f"spikingjelly.{package}.rnn.{cell}"
    for package in ("activation_based", "clock_driven")
    for cell in ("SpikingLSTMCell", "SpikingGRUCell")
)
_MULTI_STEP = "MultiStepModule"
_NONLINEAR = {"QIFNode", "EIFNode", "IzhikevichNode", "RAFNode", "MultiStepEIFNode"}
_DECAYS = ("decay", "mem_decay", "v_decay")
_WITHOUT_RESET = {"PSN", "MaskedPSN", "SlidingPSN"}
_SUBTRACTS = {"ComplementaryLIFNode", "STBIFNode", "DSRIFNode", "DSRLIFNode"}
# Their reset is more than s·θ, or their output is not what the reset took.
_CANNOT_BE_UNDONE = {"ComplementaryLIFNode", "KLIFNode", "LIAFNode", "MPBNBaseNode"}


def _is_spiking(module: nn.Module, names: list[str]) -> bool | None:
    if not any(n.startswith(_PACKAGES) for n in names):
        return False if names[0].startswith(_LAYERS) else None
    if "LIAFNode" in short_names(module) and not _is_graded(module):
        return False
    return not any("NonSpiking" in n.rpartition(".")[2] for n in names)


def _is_graded(module: Any) -> bool:
    """Whether a LIAFNode passes on how far the potential is above the threshold, and else 0."""
    return bool(module.threshold_related) and (
        isinstance(module.act, nn.ReLU) or module.act in (torch.relu, nn.functional.relu)
    )


def _axes(module: nn.Module, spikes: Tensor) -> str:  # noqa: ARG001
    return "TB*" if _whole_sequence(module) else "B*"


def _whole_sequence(module: nn.Module) -> bool:
    mode = read(module, "step_mode")
    if mode in ("s", "m"):
        return mode == "m"
    return any(n == _MULTI_STEP or n.startswith("MultiStep") for n in short_names(module))


def _starts_sample(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> bool | None:
    memories: Mapping[str, Any] | None = vars(module).get("_memories")
    if memories is None:
        return None
    if not any(isinstance(m, Tensor) or (isinstance(m, list) and m) for m in memories.values()):
        return True
    drive, v = args[0] if args else next(iter(kwargs.values()), None), memories.get("v")
    if not isinstance(v, Tensor) or not isinstance(drive, Tensor):
        return False
    # 2.0 begins anew where a batch of another size comes.
    return v.shape != (drive.shape[1:] if _whole_sequence(module) else drive.shape)


def _dynamics(module: nn.Module) -> Dynamics:
    own = own_steps(own_type(module))
    return Dynamics(
        threshold=_threshold(module, own.kinds) if own.fires else None,
        decay=_decay(module, own.kinds) if own.charges else _named_decay(module, own),
        decay_guessed=own.is_users,
        reset=_reset(module, own),
        reset_to=plain(read(module, "v_reset")) if own.resets else None,
        surrogate=surrogate_name(read(module, "surrogate_function")),
        learnable=learnable(module),
    )


def _threshold(module: Any, kinds: frozenset[str]) -> Number | None:
    if "GatedLIFNode" in kinds:
        return module.v_threshold.detach().view(-1, 1, 1).sigmoid()
    if "MPBNBaseNode" in kinds and read(module, "learnable_vth", False):
        shape = (-1, 1, 1) if isinstance(module.vbn, nn.BatchNorm2d) else (-1,)
        return module.a.detach().exp().view(shape)
    if "MPBNBaseNode" in kinds and module.fold_bn:
        return None  # made anew in each step, of the batch
    threshold = plain(read(module, "v_threshold", read(module, "q_threshold")))
    if kinds & {"DSRIFNode", "DSRLIFNode"}:
        return threshold.clamp(min=module.v_threshold_lower_bound)
    return threshold


def _decay(module: Any, kinds: frozenset[str]) -> Number | None:
    if kinds & _NONLINEAR:
        return None
    if "GatedLIFNode" in kinds:
        gate, leak = plain(module.alpha).sigmoid(), plain(module.tau).sigmoid()
        return 1 - gate * (1 - leak)
    if "DSRLIFNode" in kinds:
        return math.exp(-module.delta_t / module.tau)
    if any("ParametricLIFNode" in kind for kind in kinds):
        return 1 - plain(module.w).sigmoid()
    if any("CUBALIFNode" in kind or kind == "ILCLIFNode" for kind in kinds):
        return module.v_decay
    # Any other's τ is a user's, of something else.
    tau = read(module, "tau") if any("LIFNode" in kind for kind in kinds) else None
    decay = None if tau is None else 1 - 1 / plain(tau)
    if "KLIFNode" in kinds and decay is not None and not module.scale_reset:
        return plain(module.k) * decay
    return decay


def _named_decay(module: nn.Module, own: OwnSteps) -> Number | None:
    """A decay that a user's own charge names; a τ may stand in seconds, or in an exponent."""
    held = (vars(module).get(name) for name in _DECAYS if name in own.charge_names)
    return next((plain(x) for x in held if isinstance(x, Tensor | float)), None)


def _reset(module: nn.Module, own: OwnSteps) -> Reset | None:
    kinds = own.kinds
    if not own.resets:
        return None
    if kinds & _WITHOUT_RESET:
        return "none"
    if kinds & _SUBTRACTS:
        return "subtract"
    if not has(module, "v_reset"):
        return None
    return "subtract" if module.v_reset is None else "zero"


def _membrane(module: nn.Module, output: Any) -> Membrane | None:
    own, spikes = own_steps(own_type(module)), first_tensor(output)
    kinds = own.kinds
    v, whole = read(module, "v"), read(module, "v_seq")
    if spikes is None or not isinstance(v, Tensor):
        return None
    if _whole_sequence(module):
        if isinstance(whole, Tensor) and whole.shape == spikes.shape:
            v = whole
        else:
            spikes = spikes[-1]
    if v.shape != spikes.shape:
        return None
    v, spikes = v.detach(), spikes.detach()
    if "GatedLIFNode" in kinds:  # it resets in the next step
        return Membrane(v, pre_reset=True)
    threshold = plain(read(module, "v_threshold"))
    if (
        _reset(module, own) != "subtract"
        or threshold is None
        or kinds & (_CANNOT_BE_UNDONE | _SUBTRACTS)
    ):
        return Membrane(v, pre_reset=False)
    return Membrane(v + spikes * threshold, pre_reset=True)


LIBRARY = Library(
    "spikingjelly",
    is_spiking=_is_spiking,
    axes=_axes,
    starts_sample=_starts_sample,
    dynamics=_dynamics,
    membrane=_membrane,
    gated_cells=_GATED_CELLS,
    is_graded=lambda module: "LIAFNode" in short_names(module),
    saved=saved_in(
        "spikingjelly._ops.surrogate.",
        "spikingjelly.activation_based.surrogate.",
        "spikingjelly.clock_driven.surrogate.",
        what="u-theta",
    ),
)
