"""Spikes that a layer with weights makes of its own input, before it multiplies with them.

As in SpikeLM (Xing et al. 2024): a subclass of `nn.Linear` integrates what it is given over time,
makes ternary spikes of that by a custom `autograd.Function`, and multiplies these. Its output is no
spikes, so that it is never a spiking layer itself; what its functions make within is one.
"""

import weakref
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import nn

from spikewatch.layers import Layer, own_type
from spikewatch.observing import Counts, Session

from ..calls import Subject
from ..library import Library
from ..reachable import functions_of, reaches_compiled, reaches_tap
from ..shared import Shared
from .inside import Inside
from .running import Ear


_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)
_insides: weakref.WeakKeyDictionary[nn.Module, Inside] = weakref.WeakKeyDictionary()


def own_functions(module: nn.Module) -> frozenset[Any]:
    """The custom autograd functions that the own forward of a layer with weights can reach."""
    if not isinstance(module, _WEIGHTED):
        return frozenset()
    home = getattr(getattr(own_type(module), "forward", None), "__module__", None) or ""
    if home.startswith("torch.") or reaches_tap(module) or reaches_compiled(module):
        return frozenset()  # what is compiled would be compiled anew for who listens
    return functions_of(module)


def may_fire(module: nn.Module) -> bool:
    """Whether a layer with weights makes spikes of its input, or it is not known yet."""
    inside = _insides.get(module)
    return inside is not None and inside.live


def fires(module: nn.Module) -> bool:
    """Whether a layer with weights has shown to make spikes of its input."""
    inside = _insides.get(module)
    return inside is not None and inside.fires


def find(
    modules: Mapping[str, nn.Module],
    shared: Shared,
    *,
    taken: Collection[str],
) -> Iterator["WeightedObserver"]:
    """An observer for each layer with weights whose forward can reach a custom autograd function.

    Args:
        modules: Those of the model, by name.
        shared: What the observers of the model share.
        taken: Names of layers that are watched for their output.
    """
    for name, module in modules.items():
        if name not in taken and (functions := own_functions(module)):
            yield WeightedObserver(name, module, functions, shared)


class WeightedObserver:
    """Watches the spikes that one layer with weights makes within its forward."""

    def __init__(
        self, name: str, module: nn.Module, functions: frozenset[Any], shared: Shared
    ) -> None:
        assert shared.running is not None  # noqa: S101 - there is a model
        self.layer = Layer(name, "synapse", "user", own_type(module).__name__)
        self.always_on = False
        self.shared = shared
        self._module = weakref.ref(module)
        self._session: Session | None = None
        self._ear = Ear(name, module, functions, shared.running, self._subject, weighs=True)
        self._ear.inside.settle(inner=True)
        _insides[module] = self._ear.inside

    @property
    def module(self) -> nn.Module | None:
        """The layer, while it lives."""
        return self._module()

    @property
    def inner_layers(self) -> list[Layer]:
        """What was seen to make spikes."""
        return self._ear.inside.layers

    def start(self, session: Session) -> None:
        """Listen, as long as there is something to hear."""
        self._session = session
        self._ear.start(session, self)

    def stop(self) -> None:
        """Listen no more."""
        self._ear.stop()

    def flush(self, phase: str) -> Counts | None:
        """Counters of each function that makes spikes."""
        session = self._session
        inner = None if session is None else self._ear.inside.flush(session, phase)
        return Counts({}, sites=inner) if inner else None

    def _subject(self, library: Library) -> Subject:
        return Subject(
            library,
            self._module,
            self._tell,
            self._spent,
            fault=self._fault,
            widths=self.shared.widths,
            optimizes=self._optimizes,
        )

    def _tell(self, message: str) -> None:
        if self._session is not None:
            self._session.note(self.layer.name, message)

    def _spent(self, seconds: float) -> None:
        if self._session is not None:
            self._session.spent(seconds)

    def _fault(self, error: Exception) -> None:
        if self._session is not None:
            self._session.fault(self.layer.name, error)

    def _optimizes(self, parameter: Any) -> bool:
        return self._session is not None and self._session.optimizes(parameter)
