"""snnTorch 1.0.

* Recognised by `SpikingNeuron` in the MRO, and `LeakyParallel`, which is a plain module.
* Returns a tuple with the spikes first, or the spikes alone (`init_hidden=True`).
* Called once for each time step, shape [B, *]; the parallel ones get the sequence, [T, B, *].
* A sample starts where the state `mem`, passed or kept, is fresh.
* β is clamped to [0, 1] as the forward pass does; `Lapicque` decays by 1 − Δt/(RC), whatever its β,
  and the filter of `StateLeaky` and `LinearLeaky` by exp(−1/τ).
* `mem` is the potential that was compared with the threshold, unless `reset_delay=False`.
* Left out: `AssociativeLeaky` (real-valued output), `StateLeaky(output=False)` (membrane only).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..attributes import read
from ..library import Dynamics, Library, Membrane, Number, Saved, Start, States, first_tensor
from .reading import argument, is_fresh, learnable, plain, short_names, surrogate_name


_BASES = {
    "snntorch._neurons.neurons.SpikingNeuron",
    "snntorch._neurons.leakyparallel.LeakyParallel",
}
_SAVE_OUTPUT = {"snntorch.surrogate.Heaviside", "snntorch.surrogate.LeakySpikeOperator"}
_TERNARY = "snntorch_ternary."
_WHOLE_SEQUENCE = {"LeakyParallel", "StateLeaky", "LinearLeaky"}
_NEVER_RESET = _WHOLE_SEQUENCE | {"DeltaLeaky"}
# The potential of Alpha is the difference of two currents, that of the LSTMs is gated.
_NO_SINGLE_DECAY = {"Alpha", "SLSTM", "SConv2dLSTM"}


def _is_spiking(module: nn.Module, names: list[str]) -> bool | None:
    if not _BASES.intersection(names) or any(n.startswith(_TERNARY) for n in names):
        return None
    if "AssociativeLeaky" in short_names(module):
        return False
    return not ("StateLeaky" in short_names(module) and not read(module, "output", True))


def _axes(module: nn.Module, spikes: Tensor) -> str:  # noqa: ARG001
    return "TB*" if _WHOLE_SEQUENCE & short_names(module) else "B*"


def starts_sample(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Start:
    """A call whose state is fresh, or does not fit the input, which makes snnTorch begin anew."""
    (mem,) = _states_before(module, args, kwargs)
    drive = argument(module, args, kwargs, "input_")
    keeps_shape = not {"SLSTM", "SConv2dLSTM"} & short_names(module)
    if keeps_shape and isinstance(mem, Tensor) and isinstance(drive, Tensor):
        return True if mem.shape != drive.shape else is_fresh(mem, drive=drive)
    return is_fresh(mem, drive=drive)


def _states_before(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Any]:
    passed = argument(module, args, kwargs, "mem")
    mem = passed if passed is not None else read(module, "mem")
    return [mem[0] if isinstance(mem, tuple) else mem]  # DeltaLeaky: with the one before


def _states_after(module: nn.Module, output: Any) -> list[Any]:
    returned = [*output[1:]] if isinstance(output, tuple) else []
    return [*returned, read(module, "mem")]


def dynamics(module: nn.Module) -> Dynamics:
    """Parameters as the forward pass uses them."""
    kinds, own = short_names(module), learnable(module)
    threshold = "delta_threshold" if "DeltaLeaky" in kinds else "threshold"
    if "LeakyParallel" in kinds:
        recurrent = module.get_submodule("rnn")
        own |= {f"rnn.{k}": p for k, p in learnable(recurrent).items() if k == "weight_hh_l0"}
    return Dynamics(
        threshold=plain(read(module, threshold)),
        decay=_decay(module, kinds),
        reset="none" if kinds & _NEVER_RESET else read(module, "reset_mechanism"),
        surrogate=surrogate_name(read(module, "spike_grad")),
        learnable=own,
    )


def _decay(module: Any, kinds: frozenset[str]) -> Number | None:
    if kinds & _NO_SINGLE_DECAY:
        return None
    if "LeakyParallel" in kinds:
        return module.rnn.weight_hh_l0.detach().diagonal()
    if "StateLeaky" in kinds:
        return torch.exp(-1 / module.tau.detach())
    if "Lapicque" in kinds:
        return 1 - plain(module.time_step / (module.R * module.C))
    beta = plain(read(module, "beta"))
    return beta if beta is None or "DeltaLeaky" in kinds else beta.clamp(0, 1)


def membrane(module: nn.Module, output: Any) -> Membrane | None:
    """The potential of one time step; [T, …] for the parallel neurons that show it."""
    kinds, spikes = short_names(module), first_tensor(output)
    mem = output[1] if "StateLeaky" in kinds else read(module, "mem")
    if "DeltaLeaky" in kinds:  # the change is compared with the threshold
        current, previous = output[1]
        mem = (current - previous).abs()
    if not isinstance(mem, Tensor) or spikes is None or mem.shape != spikes.shape:
        return None  # SConv2dLSTM pools what it compares
    # RSynaptic takes θ from a local name only, so that its potential keeps the spike.
    before = bool(read(module, "reset_delay", True)) or "RSynaptic" in kinds
    return Membrane(mem.detach(), pre_reset=before)


def _saved(function: str) -> Saved:
    if not function.startswith("snntorch.") or function in _SAVE_OUTPUT:
        return "other"
    return "u-theta"


LIBRARY = Library(
    "snntorch",
    is_spiking=_is_spiking,
    axes=_axes,
    starts_sample=starts_sample,
    states=States(_states_before, _states_after),
    dynamics=dynamics,
    membrane=membrane,
    saved=_saved,
    amplitude="graded_spikes_factor",
)
