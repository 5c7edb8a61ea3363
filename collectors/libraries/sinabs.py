"""sinabs 3.1: stateful layers, of which those with `does_spike` are neurons.

* Returns the spikes alone, [B, T, *]; the `…Squeeze` classes fold batch and time into one axis,
  [B·T, *], and know how many there are of one of them. Neurons may send several spikes in one step.
* A sample begins where the state is at rest, as `reset_states` makes it, or where a batch of
  another size comes; one whose state was only detached goes on, as truncated backpropagation
  through time does. Without gradients a sequence is a sample: evaluations rarely reset anything.
* Decays by exp(−1/τ), or by `alpha_mem` where that is trained instead; `IAF` has no leak.
* `v_mem` is the potential after the reset, of the last time step, or of all with `record_states`; a
  reset by subtraction is undone, s·θ is added; where `min_v_mem` clips, that is not seen.
* Left out: `ExpLeak` and its kin (`does_spike` is false), and the model that a `Network` was
  converted from, which it keeps beside the spiking one.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..attributes import read
from ..library import Dynamics, Library, Membrane, Number, Reset, Start, first_tensor, saved_in
from .reading import is_fresh, learnable, plain, short_names, surrogate_name


_STATEFUL = "sinabs.layers.stateful_layer.StatefulLayer"
_NETWORK = "sinabs.network.Network"
_SQUEEZE = "SqueezeMixin"
_SUBTRACT, _TO_A_VALUE = "MembraneSubtract", "MembraneReset"


def _is_spiking(module: nn.Module, names: list[str]) -> bool | None:
    return bool(read(module, "does_spike", False)) if _STATEFUL in names else None


def _uncalled(module: Any, names: list[str]) -> frozenset[str]:
    converted = _NETWORK in names and module.spiking_model is not None
    return frozenset({"analog_model"} if converted else ())


def _axes(module: nn.Module, spikes: Tensor) -> str:
    return "B*" if _is_one_step(_sequence(module, spikes)) else "BT*"


def _unfold(module: nn.Module, spikes: Tensor) -> Tensor:
    sequence = _sequence(module, spikes)
    return sequence.squeeze(1) if _is_one_step(sequence) else sequence


def _sequence(module: Any, x: Tensor) -> Tensor:
    """[B, T, *]."""
    if _SQUEEZE not in short_names(module):
        return x
    return x.unflatten(0, (module.batch_size, module.num_timesteps))


def _is_one_step(sequence: Tensor) -> bool:
    return sequence.dim() > 2 and sequence.shape[1] == 1


def _starts_sample(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Start:
    drive = args[0] if args else next(iter(kwargs.values()), None)
    states = [x for x in module._buffers.values() if x is not None]
    if not isinstance(drive, Tensor) or not states:
        return None
    sequence = _sequence(module, drive.detach())
    if any(x.shape != sequence[:, 0].shape for x in states):
        return True
    if not _is_one_step(sequence) and not torch.is_grad_enabled():
        return True
    fresh = [is_fresh(x, drive=drive) for x in states]
    return False if False in fresh else fresh[0]


def _dynamics(module: nn.Module) -> Dynamics:
    return Dynamics(
        # ALIF has one for each neuron and sample, which moves; at first it holds nothing.
        threshold=_threshold(module),
        decay=_decay(module),
        reset=_reset(module),
        reset_to=read(read(module, "reset_fn"), "reset_value"),
        surrogate=surrogate_name(read(module, "surrogate_grad_fn")),
        learnable=learnable(module),
    )


def _threshold(module: Any) -> Number | None:
    threshold = plain(read(module, "spike_threshold"))
    if isinstance(threshold, Tensor) and threshold.numel() == 0:
        return plain(read(module, "b0"))
    return threshold


def _decay(module: Any) -> Number | None:
    if read(module, "alpha_mem") is not None:
        return plain(module.alpha_mem)
    tau = read(module, "tau_mem")
    return None if tau is None else torch.exp(-1 / plain(tau))


def _reset(module: Any) -> Reset | None:
    kind = type(read(module, "reset_fn")).__name__
    return "subtract" if kind == _SUBTRACT else "zero" if kind == _TO_A_VALUE else None


def _membrane(module: Any, output: Any) -> Membrane | None:
    spikes, v = first_tensor(output), read(module, "v_mem")
    if spikes is None or not isinstance(v, Tensor):
        return None
    spikes = _sequence(module, spikes.detach())
    recorded = (read(module, "recordings") or {}).get("v_mem")
    if isinstance(recorded, Tensor) and recorded.shape == spikes.shape:
        v = recorded
    else:
        spikes = spikes[:, -1]
    if v.shape != spikes.shape:
        return None
    v = v.detach()
    threshold = read(module.reset_fn, "subtract_value") or _threshold(module)
    if _reset(module) != "subtract" or threshold is None or "ALIF" in short_names(module):
        return Membrane(v, pre_reset=False)
    return Membrane(v + spikes * threshold, pre_reset=True)


LIBRARY = Library(
    "sinabs",
    is_spiking=_is_spiking,
    uncalled=_uncalled,
    axes=_axes,
    unfold=_unfold,
    starts_sample=_starts_sample,
    dynamics=_dynamics,
    membrane=_membrane,
    saved=saved_in("sinabs.", what="u"),
    several_a_step=True,
)
