"""sinabs 3.1: stateful layers, of which those with `does_spike` are neurons.

* Returns the spikes alone, [B, T, *]; the `…Squeeze` classes fold batch and time into one axis,
  [B·T, *], and know how many there are of one of them. Neurons may send several spikes in one step.
* Every call is a sample of its own, whatever state the layer kept from the last one.
* Decays by exp(−1/τ), or by `alpha_mem` where that is trained instead; `IAF` has no leak.
* `v_mem` is the potential after the reset, of the last time step, or of all with `record_states`; a
  reset by subtraction is undone, s·θ is added; where `min_v_mem` clips, that is not seen.
* Left out: `ExpLeak` and its kin (`does_spike` is false).
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..library import Dynamics, Library, Membrane, Number, Reset, first_tensor, saved_in
from .reading import learnable, plain, short_names, surrogate_name


_STATEFUL = "sinabs.layers.stateful_layer.StatefulLayer"
_SQUEEZE = "SqueezeMixin"
_SUBTRACT, _TO_A_VALUE = "MembraneSubtract", "MembraneReset"


def _is_spiking(module: nn.Module, names: list[str]) -> bool | None:
    return bool(getattr(module, "does_spike", False)) if _STATEFUL in names else None


def _axes(module: nn.Module, spikes: Tensor) -> str:  # noqa: ARG001
    return "BT*"


def _unfold(module: Any, spikes: Tensor) -> Tensor:
    if _SQUEEZE not in short_names(module):
        return spikes
    return spikes.unflatten(0, (module.batch_size, module.num_timesteps))


def _dynamics(module: nn.Module) -> Dynamics:
    return Dynamics(
        # ALIF has one for each neuron and sample, which moves; at first it holds nothing.
        threshold=_threshold(module),
        decay=_decay(module),
        reset=_reset(module),
        reset_to=getattr(getattr(module, "reset_fn", None), "reset_value", None),
        surrogate=surrogate_name(getattr(module, "surrogate_grad_fn", None)),
        learnable=learnable(module),
    )


def _threshold(module: Any) -> Number | None:
    threshold = plain(getattr(module, "spike_threshold", None))
    if isinstance(threshold, Tensor) and threshold.numel() == 0:
        return plain(getattr(module, "b0", None))
    return threshold


def _decay(module: Any) -> Number | None:
    if getattr(module, "alpha_mem", None) is not None:
        return plain(module.alpha_mem)
    tau = getattr(module, "tau_mem", None)
    return None if tau is None else torch.exp(-1 / plain(tau))


def _reset(module: Any) -> Reset | None:
    kind = type(getattr(module, "reset_fn", None)).__name__
    return "subtract" if kind == _SUBTRACT else "zero" if kind == _TO_A_VALUE else None


def _membrane(module: Any, output: Any) -> Membrane | None:
    spikes, v = first_tensor(output), getattr(module, "v_mem", None)
    if spikes is None or not isinstance(v, Tensor):
        return None
    spikes = _unfold(module, spikes.detach())
    recorded = (getattr(module, "recordings", None) or {}).get("v_mem")
    if isinstance(recorded, Tensor) and recorded.shape == spikes.shape:
        v = recorded
    else:
        spikes = spikes[:, -1]
    if v.shape != spikes.shape:
        return None
    v = v.detach()
    threshold = getattr(module.reset_fn, "subtract_value", None) or _threshold(module)
    if _reset(module) != "subtract" or threshold is None or "ALIF" in short_names(module):
        return Membrane(v, pre_reset=False)
    return Membrane(v + spikes * threshold, pre_reset=True)


LIBRARY = Library(
    "sinabs",
    is_spiking=_is_spiking,
    axes=_axes,
    unfold=_unfold,
    dynamics=_dynamics,
    membrane=_membrane,
    saved=saved_in("sinabs.", what="u"),
    several_a_step=True,
)
