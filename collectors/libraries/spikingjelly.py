"""SpikingJelly: 2.0, 0.0.0.0.14 (`activation_based`) and 0.0.0.0.12 (`clock_driven`).

* Recognised by the module that a class on the MRO stands in: many neurons of 2.0 (PSN, GatedLIF,
  FewSpike, ILC, …) do not derive from `BaseNode`.
* Returns the spikes alone. Step mode "s": called for each time step, [B, *]; "m" (and the classes
  `MultiStep…`, PSN, ILC, noisy ones, which know nothing else): the sequence, [T, B, *].
* Left out: `NonSpiking…` (leaky integrators of the readout).
"""

from torch import Tensor, nn

from ..library import Library


_PACKAGES = (
    "spikingjelly.activation_based.neuron",
    "spikingjelly.clock_driven.neuron",
)
_MULTI_STEP = "spikingjelly.activation_based.base.MultiStepModule"


def _is_spiking(module: nn.Module, names: list[str]) -> bool | None:  # noqa: ARG001
    if not any(n.startswith(_PACKAGES) for n in names):
        return None
    return not any("NonSpiking" in n.rpartition(".")[2] for n in names)


def _axes(module: nn.Module, spikes: Tensor) -> str:  # noqa: ARG001
    mode = getattr(module, "step_mode", None)
    if mode in ("s", "m"):
        return "TB*" if mode == "m" else "B*"
    names = [f"{c.__module__}.{c.__qualname__}" for c in type(module).__mro__]
    multi = any(n == _MULTI_STEP or n.rpartition(".")[2].startswith("MultiStep") for n in names)
    return "TB*" if multi else "B*"


LIBRARY = Library("spikingjelly", is_spiking=_is_spiking, axes=_axes)
