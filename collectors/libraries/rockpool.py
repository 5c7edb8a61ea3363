"""rockpool 3.1: LIF modules for torch.

* Recognised by `LIFBaseTorch` (LIFTorch, aLIFTorch, LIFBitshiftTorch) and `LIFNeuronTorch`.
* A call returns (spikes, state, record), but hooks see the spikes alone, [B, T, *]. Neurons may
  send several spikes in one step.
* Every call is a sample of its own. Between calls only the state of the batch's first sample is
  kept, so the potential shows in a call with `record=True` only: after the reset, which is undone.
* Decays by exp(−Δt/τ), whichever of τ, decay and bit shift is the parameter.
* A hook on the root `TorchSequential` is never called; `parameters()` and `modules()` are dicts.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..attributes import read
from ..library import Dynamics, Library, Membrane, Number, first_tensor, saved_in
from .reading import learnable, plain, surrogate_name


_MODULES = "rockpool.nn.modules.torch."
_BASES = {_MODULES + "lif_torch.LIFBaseTorch", _MODULES + "lif_neuron_torch.LIFNeuronTorch"}
_WEIGHTS = ("w_rec", "w_ahp", "bias")


def _is_spiking(module: nn.Module, names: list[str]) -> bool | None:  # noqa: ARG001
    return True if _BASES.intersection(names) else None


def _axes(module: nn.Module, spikes: Tensor) -> str:  # noqa: ARG001
    return "BT*"


def _dynamics(module: nn.Module) -> Dynamics:
    return Dynamics(
        threshold=plain(read(module, "threshold")),
        decay=_decay(module),
        reset="subtract",
        surrogate=surrogate_name(read(module, "spike_generation_fn")),
        learnable=learnable(module, besides=_WEIGHTS),
    )


def _decay(module: Any) -> Number | None:
    held = {**module._parameters, **module._buffers}  # τ, or whatever else, may not be trained
    if held.get("alpha") is not None:
        return plain(held["alpha"])
    if held.get("dash_mem") is not None:
        return 1 - 2 ** -plain(held["dash_mem"])
    tau = held.get("tau_mem")
    return None if tau is None else torch.exp(-module.dt / plain(tau))


def _membrane(module: nn.Module, output: Any) -> Membrane | None:
    spikes, record = first_tensor(output), read(module, "_record_dict") or {}
    v = record.get("vmem")
    if not isinstance(v, Tensor) or spikes is None or v.shape != spikes.shape:
        return None
    threshold = plain(read(module, "threshold", 1.0))
    v, spikes = v.detach(), spikes.detach()
    return Membrane(v + spikes * threshold, pre_reset=True)


LIBRARY = Library(
    "rockpool",
    is_spiking=_is_spiking,
    axes=_axes,
    dynamics=_dynamics,
    membrane=_membrane,
    saved=saved_in("rockpool.", what="u"),
    several_a_step=True,
)
