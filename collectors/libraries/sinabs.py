"""sinabs 3.1: stateful layers, of which those with `does_spike` are neurons.

* Returns the spikes alone, [B, T, *]; the `…Squeeze` classes fold batch and time into one axis,
  [B·T, *], which counts the same. Neurons may send several spikes in one step (0 … n).
* Left out: `ExpLeak` and its kin (`does_spike` is false).
"""

from torch import Tensor, nn

from ..library import Library


_STATEFUL = "sinabs.layers.stateful_layer.StatefulLayer"
_SQUEEZE = "SqueezeMixin"


def _is_spiking(module: nn.Module, names: list[str]) -> bool | None:
    return bool(getattr(module, "does_spike", False)) if _STATEFUL in names else None


def _axes(module: nn.Module, spikes: Tensor) -> str:  # noqa: ARG001
    squeezed = any(c.__name__ == _SQUEEZE for c in type(module).__mro__)
    return "B*" if squeezed else "BT*"


LIBRARY = Library("sinabs", is_spiking=_is_spiking, axes=_axes)
