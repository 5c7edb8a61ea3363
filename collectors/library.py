"""What has to be known of a library's spiking layers. One instance in each file of `libraries/`.

A third party adds a library by an entry point in the group `spikewatch.libraries` that names a
`Library`. Nothing is imported to recognise a layer: classes are known by their qualified names
along the method resolution order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from torch import Tensor, nn


def first_tensor(output: Any) -> Tensor | None:
    """The spikes in what a neuron returns: the tensor itself, or a tuple's first element."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def step_axes(module: nn.Module, spikes: Tensor) -> str:  # noqa: ARG001
    """A neuron that is called once for each time step."""
    return "B*"


@dataclass(frozen=True)
class Library:
    """How the spiking layers of one library are recognised and read.

    Attributes:
        name: Name of the library, as its users write it.
        is_spiking: Whether a module is one of its spiking layers, from the qualified names of the
            classes along its MRO; None where the library does not know the class.
        spikes: Takes the spikes out of what the layer's forward returns.
        axes: Axes of that tensor, written as in `spikewatch.collectors.axes`.
        amplitude: Attribute with the amplitude of a spike, if the layer has one.
    """

    name: str
    is_spiking: Callable[[nn.Module, list[str]], bool | None]
    spikes: Callable[[Any], Tensor | None] = first_tensor
    axes: Callable[[nn.Module, Tensor], str] = step_axes
    amplitude: str | None = None


def qualified_names(cls: type) -> list[str]:
    """Qualified names of a class and its bases, nearest first."""
    return [f"{c.__module__}.{c.__qualname__}" for c in cls.__mro__]


def load_libraries() -> list[Library]:
    """The libraries known here, ours and third parties'."""
    return [e.load() for e in entry_points(group="spikewatch.libraries")]
