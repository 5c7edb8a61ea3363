"""btorch 0.1: neurons in continuous time.

* Recognised by `btorch.models.base.BaseNode`, and `TwoCompartmentGLIF`; populations hold such.
* Returns the spikes alone, or first in a tuple. Step mode "s": called for each time step, [B, *];
  "m": the sequence, [T, B, *].
* A sample starts where `v` rests and has no history: after `init_net_state` or `reset_net`.
* The time step is no attribute but stands in btorch's environment. Decays follow from it only where
  it is set for all (`environ.set(dt=…)`), not in a context that has ended.
* `v` is the potential after the reset. One by subtraction takes θ − v_reset and is undone;
  `v_pre_spike` is the potential before, where it is kept.
"""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..attributes import read
from ..library import Dynamics, Library, Membrane, Number, Start, first_tensor
from .reading import is_fresh, learnable, plain, short_names, surrogate_name


_BASES = {
    "btorch.models.base.BaseNode",
    "btorch.models.neurons.two_compartment.TwoCompartmentGLIF",
}


def _is_spiking(module: nn.Module, names: list[str]) -> bool | None:  # noqa: ARG001
    return True if _BASES.intersection(names) else None


def _axes(module: nn.Module, spikes: Tensor) -> str:  # noqa: ARG001
    return "TB*" if read(module, "step_mode", "s") == "m" else "B*"


def _starts_sample(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Start:
    drive = args[0] if args else next(iter(kwargs.values()), None)
    initial = read(module, "_memories_rv", {}).get("v")
    rest = read(initial, "value")
    rest = 0.0 if rest is None else torch.as_tensor(rest)
    return is_fresh(module._buffers.get("v"), drive=drive, rest=rest)


def _dynamics(module: nn.Module) -> Dynamics:
    kinds = short_names(module)
    return Dynamics(
        threshold=plain(read(module, "v_threshold")),
        decay=_decay(module, kinds),
        reset="zero" if read(module, "hard_reset", False) else "subtract",
        reset_to=plain(read(module, "v_reset")),
        surrogate=surrogate_name(read(module, "surrogate_function")),
        learnable=learnable(module),
    )


def _decay(module: Any, kinds: frozenset[str]) -> Number | None:
    environment = sys.modules.get("btorch.models.environ")
    dt = None if environment is None else environment.all().get("dt")
    tau = plain(read(module, "tau"))
    if dt is None or tau is None or "IF" in kinds:
        return None
    if "GLIF3" in kinds:  # integrates by the exponential Euler method
        return torch.exp(-dt / tau)
    return 1 - dt / tau if "LIF" in kinds else None


def _membrane(module: nn.Module, output: Any) -> Membrane | None:
    spikes, v = first_tensor(output), module._buffers.get("v")
    before = module._buffers.get("v_pre_spike")
    if spikes is None or not isinstance(v, Tensor):
        return None
    spikes = spikes.detach()[-1 if _axes(module, spikes) == "TB*" else ...]
    if v.shape != spikes.shape:
        return None
    if read(module, "pre_spike_v", False) and isinstance(before, Tensor):
        return Membrane(before.detach(), pre_reset=True)
    if read(module, "hard_reset", False) or "BaseNode" not in short_names(module):
        return Membrane(v.detach(), pre_reset=False)
    taken = plain(module.v_threshold) - plain(module.v_reset)
    return Membrane(v.detach() + spikes * taken, pre_reset=True)


LIBRARY = Library(
    "btorch",
    is_spiking=_is_spiking,
    axes=_axes,
    starts_sample=_starts_sample,
    dynamics=_dynamics,
    membrane=_membrane,
    saved="other",
)
