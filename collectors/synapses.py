"""Observers of synaptic operations: what weight layers multiply their weights with.

One forward hook a layer, in the observed steps that have the dear readings. Counted is what the
layer was called with; a weight that is applied by hand (`F.linear` in a forward of one's own) and
products of attention are not seen.
"""

import time
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikewatch.layers import Layer, own_type
from spikewatch.observing import Counts, OnHost, Session

from .fan_out import fan_out
from .hooks import Hook, in_recomputation, why_unreadable
from .recognise import named_modules
from .sums import in_full_precision


_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)
_NAMES = ("n_inputs", "n_nonzero_inputs", "n_outputs", "n_sops", "n_macs", "n_dense_macs")
# Spikes are {−a, 0, +a}: their sum of |x| is a times their number, up to rounding.
_ONE_LEVEL = 1e-4


def find(
    model: nn.Module,
    *,
    named: Mapping[str, str],  # noqa: ARG001 - layers named by hand are spiking ones
    taken: frozenset[str],
) -> Sequence["SynapseObserver"]:
    """An observer for each Linear and Conv layer."""
    return [
        SynapseObserver(name, module)
        for name, module in named_modules(model).items()
        if name not in taken and isinstance(module, _WEIGHTED)
    ]


class SynapseObserver:
    """Counts the operations of one weight layer."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.layer = Layer(name, "synapse", "torch", own_type(module).__name__)
        self._module = weakref.ref(module)
        self.always_on = False
        self._handle: Any = None
        self._session: Session | None = None
        self._readings: dict[str, list[Tensor]] = {}
        self._sizes: dict[str, list[tuple[int, int, float]]] = {}

    def start(self, session: Session) -> None:
        """Put the hook on, where operations are due to be counted."""
        self._session = session
        if session.detailed and (module := self._module()) is not None and self._handle is None:
            self._handle = module.register_forward_hook(Hook(self._on_forward, self))

    def stop(self) -> None:
        """Take the hook off."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _on_forward(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        session = self._session
        if session is None:
            return
        session.touch()
        if not (session.active and session.detailed) or in_recomputation():
            return
        began = time.perf_counter()
        try:
            x = args[0] if args else None
            if isinstance(x, Tensor) and isinstance(output, Tensor) and not why_unreadable(x):
                with torch._C.DisableTorchFunction():
                    self._count(session.phase(), module, x.detach(), output.numel())
        except Exception as error:  # noqa: BLE001 - contract 1: never raise into training
            session.fault(self.layer.name, error)
        session.spent(time.perf_counter() - began)

    def _count(self, phase: str, module: nn.Module, x: Tensor, n_outputs: int) -> None:
        reach = fan_out(module, x) if x.numel() else None
        if reach is None:
            return
        x = in_full_precision(x)
        events = torch.ne(x, 0, out=torch.empty_like(x))
        n_nonzero, magnitude = events.sum(), x.abs()
        if reach.each is None:
            sops = n_nonzero.double() * reach.mean
        else:  # it differs at the border
            per_place = events.flatten(0, -1 - reach.each.dim()).sum(0)
            sops = torch.dot(per_place.flatten().double(), reach.each.flatten())
        row = torch.stack([n_nonzero.double(), sops, magnitude.sum().double()])
        row = torch.cat([row, magnitude.amax().double().reshape(1)])
        self._readings.setdefault(phase, []).append(row)
        size = (x.numel(), n_outputs, reach.mean * x.numel())
        self._sizes.setdefault(phase, []).append(size)

    def flush(self, phase: str) -> Counts | None:
        """Counters of the table `energy`; samples and time steps are added from other layers."""
        readings, sizes = self._readings.pop(phase, None), self._sizes.pop(phase, [])
        if not readings:
            return None
        return Counts({"energy": {_NAMES: OnHost(torch.cat(readings), partial(_fold, sizes))}})


def _fold(sizes: list[tuple[int, int, float]], numbers: list[float]) -> Mapping[str, float | int]:
    row = dict.fromkeys(_NAMES, 0.0)
    for i, (n_inputs, n_outputs, dense) in enumerate(sizes):
        n_nonzero, sops, magnitude, largest = numbers[4 * i : 4 * i + 4]
        row["n_inputs"] += n_inputs
        row["n_nonzero_inputs"] += n_nonzero
        row["n_outputs"] += n_outputs
        row["n_dense_macs"] += dense
        spikes = abs(magnitude - largest * n_nonzero) <= _ONE_LEVEL * magnitude
        row["n_sops" if spikes else "n_macs"] += sops if spikes else dense
    return row
