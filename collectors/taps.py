"""Taps: functional neurons, which no module hook can see, named by the user in `forward`."""

from torch import Tensor, nn

from spikewatch.layers import Layer

from .library import Library
from .recognise import Found
from .shared import Shared
from .spikes import SpikeObserver


_TAP = Library("user", is_spiking=lambda module, names: None)  # noqa: ARG005


def make_tap(name: str) -> SpikeObserver:
    """The observer of one tapped tensor; it is fed by `observe_tensor`."""
    found = Found(name, nn.Identity(), _TAP, "spiking", "named by hand")
    observer = SpikeObserver(found, Shared())
    observer.layer = Layer(name, "tap", "user", Tensor.__name__, "tapped in forward")
    return observer
