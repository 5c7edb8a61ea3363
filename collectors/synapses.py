"""Observers of synaptic operations: what weight layers multiply their weights with.

One forward hook a layer, in the observed steps that have the dear readings. Counted is what the
layer was called with; where it may make spikes of that, what it multiplies in the end. What other
modules multiply by themselves: `own_products`.
"""

import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from spikewatch.layers import Layer, named_modules, own_type
from spikewatch.observing import Counts, Observer, Session

from . import own_products
from .fan_out import axes_within, fan_out, inputs_of_one
from .functional.weighted import fires, may_fire, own_functions
from .hooks import Hook, in_recomputation, why_unreadable
from .modes import FUSED
from .operations import Operations
from .own_products import WEIGHTED, ProductObserver
from .quantized.kernels import Kernel
from .quantized.pairs import half_of_pair
from .recognise import fire_several_times


_NOT_COUNTED = "its operations are not counted: it is given other axes than torch's own layer is"


def find(
    model: nn.Module,
    *,
    named: Mapping[str, str],  # noqa: ARG001 - layers named by hand are spiking ones
    taken: frozenset[str],
    known: Sequence["SynapseObserver | ProductObserver"] = (),
) -> Sequence[Observer]:
    """An observer for each Linear and Conv layer, and each module that multiplies by itself."""
    modules = named_modules(model)
    # A hook within torch's own attention would keep it from running by fused code in evaluations.
    fused = {id(p) for m in modules.values() if isinstance(m, FUSED) for p in nn.Module.modules(m)}
    free = {n: m for n, m in modules.items() if id(m) not in fused}
    several = fire_several_times(modules.values())
    for observer in known:
        observer.begin(several=several)
    weighted = {n: m for n, m in free.items() if isinstance(m, WEIGHTED) and n not in taken}
    layers = [_observer(n, m, several=several) for n, m in weighted.items()]
    wanted = {n: m for n, m in modules.items() if n not in taken}
    return [*layers, *own_products.find(wanted, several=several)]


def _observer(name: str, module: nn.Module, *, several: bool) -> "SynapseObserver":
    kind = SpikingSynapseObserver if own_functions(module) else SynapseObserver
    return kind(name, module, several=several)


class SynapseObserver:
    """Counts the operations of one weight layer; `several`: see `Operations`."""

    def __init__(self, name: str, module: nn.Module, *, several: bool = False) -> None:
        self.layer = Layer(name, "synapse", "torch", own_type(module).__name__)
        self._module = weakref.ref(module)
        self.always_on = False
        self._handle: Any = None
        self._session: Session | None = None
        self._operations = Operations(several=several)

    def begin(self, *, several: bool) -> None:
        """Count from here on, in a model that has neurons that fire several times, or has none."""
        self._operations = Operations(several=several)

    @property
    def module(self) -> nn.Module | None:
        """The layer, while it lives."""
        return self._module()

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
                self._count(session, module, x, output.numel())
        except Exception as error:  # noqa: BLE001 - contract 1: never raise into training
            session.fault(self.layer.name, error)
        session.spent(time.perf_counter() - began)

    def _count(self, session: Session, module: nn.Module, x: Tensor, n_outputs: int) -> None:
        if not x.numel():
            return
        has_graph, x = x.grad_fn is not None, x.detach()
        reach = fan_out(module, x, n_outputs)
        if reach is None:
            session.note(self.layer.name, _NOT_COUNTED)
            return
        n_called, axes = x.numel() // inputs_of_one(module, x), axes_within(module, x)
        self._operations.count(
            session.phase(),
            x,
            reach,
            n_outputs,
            n_called=n_called,
            axes=axes,
            has_graph=has_graph,
        )

    def flush(self, phase: str) -> Counts | None:
        """Counters of the table `energy`; samples and time steps are added from other layers."""
        counts = self._counted(phase)
        if counts is None:
            return None
        module = self._module()
        half = None if module is None else half_of_pair(module)
        if half == "":
            return None
        return Counts({}, sites={half: counts}) if half else counts

    def _counted(self, phase: str) -> Counts | None:
        return self._operations.flush(phase)


class SpikingSynapseObserver(SynapseObserver):
    """Counts the operations of a weight layer whose forward may make spikes of what it is given.

    They are what it multiplies with. Where that is not seen, as in a kernel of its own, it is what
    the layer was called with that counts.
    """

    def __init__(self, name: str, module: nn.Module, *, several: bool = False) -> None:
        super().__init__(name, module, several=several)
        kernels = [Kernel(name)]
        self._multiplied = ProductObserver(name, module, kernels, several=several, fires=fires)

    def begin(self, *, several: bool) -> None:
        """Count from here on; see above."""
        super().begin(several=several)
        self._multiplied.begin(several=several)

    def start(self, session: Session) -> None:
        """Put the hooks on: those that see the product only as long as it may be one of spikes."""
        super().start(session)
        module = self._module()
        if module is not None and may_fire(module):
            self._multiplied.start(session)

    def stop(self) -> None:
        """Take the hooks off."""
        super().stop()
        self._multiplied.stop()

    def _counted(self, phase: str) -> Counts | None:
        called, multiplied = super()._counted(phase), self._multiplied.flush(phase)
        return multiplied if multiplied is not None and multiplied.tables else called
