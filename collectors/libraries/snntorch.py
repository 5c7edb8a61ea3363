"""snnTorch 1.0 (and snntorch-ternary, whose neurons derive from its classes).

* Recognised by `SpikingNeuron` in the MRO, and `LeakyParallel`, which is a plain module.
* Returns a tuple with the spikes first, or the spikes alone (`init_hidden=True`).
* Called once for each time step, shape [B, *]; the parallel ones get the sequence, [T, B, *].
* Left out: `AssociativeLeaky` (real-valued output), `StateLeaky(output=False)` (membrane only).
"""

from torch import Tensor, nn

from ..library import Library


_BASES = {
    "snntorch._neurons.neurons.SpikingNeuron",
    "snntorch._neurons.leakyparallel.LeakyParallel",
}
_WHOLE_SEQUENCE = {"LeakyParallel", "StateLeaky", "LinearLeaky"}


def _short_names(module: nn.Module) -> set[str]:
    return {c.__name__ for c in type(module).__mro__}


def _is_spiking(module: nn.Module, names: list[str]) -> bool | None:
    if not _BASES.intersection(names):
        return None
    if "AssociativeLeaky" in _short_names(module):
        return False
    return not ("StateLeaky" in _short_names(module) and not getattr(module, "output", True))


def _axes(module: nn.Module, spikes: Tensor) -> str:  # noqa: ARG001
    return "TB*" if _WHOLE_SEQUENCE & _short_names(module) else "B*"


LIBRARY = Library("snntorch", is_spiking=_is_spiking, axes=_axes, amplitude="graded_spikes_factor")
