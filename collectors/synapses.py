"""Observers of synaptic operations: what weight layers multiply their weights with.

One forward hook a layer, in the observed steps that have the dear readings. Counted is what the
layer was called with; a weight that is applied by hand (`F.linear` in a forward of one's own) and
products of attention are not seen.
"""

import time
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spikewatch.layers import Layer, own_type
from spikewatch.observing import Counts, OnHost, Session

from .fan_out import fan_out
from .hooks import Hook, in_recomputation, why_unreadable
from .quantized.pairs import half_of_pair
from .recognise import named_modules
from .sums import in_full_precision


_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)
_NAMES = ("n_inputs", "n_nonzero_inputs", "n_outputs", "n_sops", "n_macs", "n_dense_macs")
# Size of the first axis of the inputs, which may be the batch; `add_samples` decides.
_LEADING = "n_leading"
# Spikes are {−a, 0, +a}: their sum of |x| is a times their number, up to rounding.
_ONE_LEVEL = 1e-4


class _Size(NamedTuple):
    """What is known of one call without looking at its numbers."""

    n_leading: int
    n_inputs: int
    n_outputs: int
    mean_reach: float  # outputs that an input has a weight to, on average
    has_border: bool  # where inputs reach fewer outputs


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
        self._sizes: dict[str, list[_Size]] = {}

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
        events, magnitude = torch.ne(x, 0, out=torch.empty_like(x)), x.abs()
        n_nonzero = events.sum()
        row = [n_nonzero, magnitude.sum(), magnitude.amax()]
        if reach.each is not None:  # it differs at the border
            per_place = events.flatten(0, -1 - reach.each.dim()).sum(0)
            row.append(torch.dot(per_place.flatten().double(), reach.each.flatten()))
        readings = self._readings.setdefault(phase, [])
        readings += row
        n_leading = len(x) if x.dim() > 1 else 1
        size = _Size(n_leading, x.numel(), n_outputs, reach.mean, reach.each is not None)
        self._sizes.setdefault(phase, []).append(size)

    def flush(self, phase: str) -> Counts | None:
        """Counters of the table `energy`; samples and time steps are added from other layers."""
        readings, sizes = self._readings.pop(phase, None), self._sizes.pop(phase, [])
        module = self._module()
        half = None if module is None else half_of_pair(module)
        if not readings or half == "":
            return None
        whole = torch.stack([r.double() for r in readings])
        counts = Counts({"energy": {_NAMES: OnHost(whole, partial(_fold, sizes))}})
        return Counts({}, sites={half: counts}) if half else counts


def _fold(sizes: list[_Size], numbers: list[float]) -> Mapping[str, float | int]:
    row, rest = dict.fromkeys((*_NAMES, _LEADING), 0.0), iter(numbers)
    for size in sizes:
        row[_LEADING] += size.n_leading
        n_nonzero, magnitude, largest = next(rest), next(rest), next(rest)
        sops = next(rest) if size.has_border else n_nonzero * size.mean_reach
        dense = size.mean_reach * size.n_inputs
        row["n_inputs"] += size.n_inputs
        row["n_nonzero_inputs"] += n_nonzero
        row["n_outputs"] += size.n_outputs
        row["n_dense_macs"] += dense
        spikes = abs(magnitude - largest * n_nonzero) <= _ONE_LEVEL * magnitude
        row["n_sops" if spikes else "n_macs"] += sops if spikes else dense
    return row
