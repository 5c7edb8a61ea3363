"""BindsNET 0.3: networks that no hook sees.

* Recognised by `Nodes` (`Input` is one of them).
* `Network.run()` calls `layer.forward()` itself, past every hook, and returns nothing; there is no
  gradient either. The note says what to do: run the network in the forward of a module, and tap
  what BindsNET's own monitor has recorded, time step by time step.
"""

from torch import nn

from ..attributes import read
from ..library import Dynamics, Library, Number
from .reading import plain, short_names


_BASE = "bindsnet.network.nodes.Nodes"
_NOTE = (
    "no hook sees it: Network.run() calls forward() itself. Run it in the forward of a module that "
    "you attach to, then: for s in monitor.get('s'): spikewatch.tap(name, s)"
)


def _is_spiking(module: nn.Module, names: list[str]) -> bool | None:  # noqa: ARG001
    return True if _BASE in names else None


def _dynamics(module: nn.Module) -> Dynamics:
    return Dynamics(
        threshold=plain(read(module, "thresh")),
        decay=_decay(module),
        reset=None if "Input" in short_names(module) else "zero",
    )


def _decay(module: nn.Module) -> Number | None:
    return plain(module._buffers.get("decay"))


LIBRARY = Library("bindsnet", is_spiking=_is_spiking, dynamics=_dynamics, note=_NOTE)
