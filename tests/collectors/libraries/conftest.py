"""What a library tells of a real layer, call by call, beside what the layer itself knows."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spikewatch.collectors.library import Library, Membrane
from spikewatch.collectors.recognise import find_spiking
from spikewatch.collectors.surrogate import surrogate_nodes


def library_of(module: nn.Module) -> Library:
    """The library that recognises a layer; it is the only spiking one in a model of it."""
    (found,) = find_spiking(nn.ModuleList([module]), named={})
    assert found.kind == "spiking"
    return found.library


@dataclass
class Told:
    """What a library tells of each call of a layer."""

    starts: list[bool | None] = field(default_factory=list)
    spikes: list[Tensor] = field(default_factory=list)
    membranes: list[Membrane | None] = field(default_factory=list)
    saved: list[Tensor] = field(default_factory=list)
    """What the surrogate's node saved, one for each time step."""

    @property
    def potentials(self) -> Tensor:
        return torch.stack([m.potential for m in self.membranes])


@pytest.fixture(name="told")
def _told() -> Any:
    """Ask a layer's library before and after each of its calls."""

    def listen_to(module: nn.Module) -> Told:
        told, library = Told(), library_of(module)

        def before(layer, args, kwargs):
            starts = library.starts_sample(layer, args, kwargs)
            told.starts.append(True if starts == "at rest" else starts)

        def after(layer, args, output):
            spikes = library.spikes(output)
            told.spikes.append(spikes.detach().clone())
            told.membranes.append(library.membrane(layer, output))
            nodes = surrogate_nodes(spikes) if spikes.requires_grad else []
            told.saved += [n.saved_tensors[0].detach().clone() for n in nodes if n.saved_tensors]

        module.register_forward_pre_hook(before, with_kwargs=True)
        module.register_forward_hook(after)
        return told

    return listen_to


@pytest.fixture(name="dynamics")
def _dynamics() -> Any:
    return lambda module: library_of(module).dynamics(module)
