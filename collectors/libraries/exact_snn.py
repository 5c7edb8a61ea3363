"""exact-snn 3.2: layers that compute the time of each neuron's only spike.

* Recognised by the layers' own classes. `ExactMultiSpike` returns several times for each neuron and
  is left out; so is `ExactRecurrent`, which is never called as a module.
* Returns times, ∞ where a neuron never fired: [N, B], neurons first; a convolution [B, C, H, W];
  `ExactTTFSRnn` one for each element of a sequence, [N, B, T].
* Its gradient is exact, there is no surrogate. A neuron that never fires gets none.
"""

from torch import Tensor, nn

from ..attributes import read
from ..library import Dynamics, Library
from .reading import short_names


_AXES = {
    "exact_snn.ExactTTFSLinear": "*B",
    "exact_snn.event.ExactEventLinear": "*B",
    "exact_snn.extended.ExactTTFSConv2d": "B*",
    "exact_snn.recurrent.ExactTTFSRnn": "*BT",
}
_SHORT = {name.rpartition(".")[2]: axes for name, axes in _AXES.items()}


def _is_spiking(module: nn.Module, names: list[str]) -> bool | None:  # noqa: ARG001
    if any(n in _AXES for n in names):
        return True
    # The others have autograd functions as well, whose outputs are not one spike for each neuron.
    return False if any(n.startswith("exact_snn.") for n in names) else None


def _axes(module: nn.Module, spikes: Tensor) -> str:  # noqa: ARG001
    return next(_SHORT[name] for name in short_names(module) if name in _SHORT)


def _dynamics(module: nn.Module) -> Dynamics:
    return Dynamics(threshold=read(module, "theta"), reset="none")


LIBRARY = Library(
    "exact-snn",
    is_spiking=_is_spiking,
    axes=_axes,
    dynamics=_dynamics,
    saved="other",
    spike_times=True,
)
