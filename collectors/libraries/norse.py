"""Norse 1.1: cells, and the modules that loop over time.

* Recognised by the bases in `norse.torch.module.snn`, whose parameters `p` have a threshold: leaky
  integrators (`LI`, `LICell`, `LIBoxCell`) share the bases and have none.
* Returns `(spikes, state)`. A cell is called for each time step, [B, *]; `SNN` and `SNNRecurrent`
  get the sequence, [T, B, *].
"""

from torch import Tensor, nn

from ..library import Library, qualified_names


_MODULE = "norse.torch.module.snn."
_CELLS = {_MODULE + name for name in ("SNNCell", "SNNRecurrentCell")}
_SEQUENCES = {_MODULE + name for name in ("SNN", "SNNRecurrent")}


def _is_spiking(module: nn.Module, names: list[str]) -> bool | None:
    if not (_CELLS | _SEQUENCES).intersection(names):
        return None
    return hasattr(getattr(module, "p", None), "v_th")


def _axes(module: nn.Module, spikes: Tensor) -> str:  # noqa: ARG001
    return "TB*" if _SEQUENCES.intersection(qualified_names(type(module))) else "B*"


LIBRARY = Library("norse", is_spiking=_is_spiking, axes=_axes)
