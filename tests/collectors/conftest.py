"""A session that listens: what an observer hands over, with nothing between."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from spikewatch.collectors.own_products import ProductObserver
from spikewatch.collectors.synapses import SynapseObserver
from spikewatch.finding import Finder
from spikewatch.layers import Layer
from spikewatch.observing import OnHost
from spikewatch.root_pass import RootPass
from spikewatch.samples import Samples


class Listener:
    """The watch's side of an observer, without journal, rules or sampling."""

    def __init__(self, model: torch.nn.Module, named: dict[str, str] | None = None) -> None:
        self.active = self.detailed = True
        self.n_forwards = self.step = 0
        self.track_weights = 65_536
        self.loss_scale: torch.Tensor | float | None = None
        self.misses_turns = False
        self.forced_phase: str | None = None
        self.samples = Samples()
        self.root_pass = RootPass()
        self.optimized: list[Tensor] = []
        self.notes: list[tuple[str, str]] = []
        self.confirmed: list[Layer] = []
        found = Finder(named=named or {}).find(model)
        self.observers = {o.layer.name: o for o in found if o.layer.kind != "synapse"}
        unlisted = [o for o in found if o.layer.kind == "synapse"]
        counting = (SynapseObserver, ProductObserver)
        self.synapses = {o.layer.name: o for o in unlisted if isinstance(o, counting)}
        self.within = [o for o in unlisted if not isinstance(o, counting)]
        """Observers of what layers with weights make within."""
        for observer in found:
            observer.start(self)

    @property
    def spiking(self) -> list[str]:
        """Layers that are taken for spiking ones; others may have quantized weights."""
        return [n for n, o in self.observers.items() if o.layer.kind == "spiking"]

    def touch(self) -> None: ...

    def begins_sample(self, layer: str, starts: bool | str | None) -> bool | None:
        return self.samples.begins(layer, starts, n_forwards=self.n_forwards)

    def spent(self, seconds: float) -> None:
        assert seconds >= 0

    def phase(self) -> str:
        return self.forced_phase or ("train" if torch.is_grad_enabled() else "eval")

    def fault(self, layer: str, error: Exception) -> None:
        del layer
        raise error

    def note(self, layer: str, message: str, *, aloud: bool = False) -> None:
        del aloud
        self.notes.append((layer, message))

    def confirm(self, layer: Layer) -> None:
        self.confirmed.append(layer)

    def flush(self, name: str, table: str, phase: str = "train") -> dict[str, Any] | None:
        """Counters of one table of one layer, as plain numbers."""
        counts = self.observers[name].flush(phase)
        if counts is None or table not in counts.tables:
            return None
        return plain(counts.tables[table])

    def tables(self, name: str, phase: str = "train") -> dict[str, dict[str, Any]]:
        """Counters of all tables of one layer."""
        observers = [o[name] for o in (self.observers, self.synapses) if name in o]
        flushed = [c for o in observers if (c := o.flush(phase)) is not None]
        return {t: plain(c) for counts in flushed for t, c in counts.tables.items()}

    def plain(self, counters: dict[str, Any]) -> dict[str, Any]:
        """Counters as the writer thread gets them."""
        return plain(counters)

    def optimizes(self, parameter: Tensor) -> bool:
        return any(parameter is p for p in self.optimized)

    def stop(self) -> None:
        for observer in (*self.observers.values(), *self.synapses.values(), *self.within):
            observer.stop()


def plain(counters: dict[str, Any]) -> dict[str, Any]:
    """Counters as the writer thread gets them."""
    row: dict[str, Any] = {}
    for name, value in counters.items():
        if isinstance(value, OnHost):
            row |= value.fold(_numbers(value.readings))
            continue
        value = value.tolist() if isinstance(value, Tensor) else value
        row |= dict(zip(name, value, strict=True)) if isinstance(name, tuple) else {name: value}
    return row


def _numbers(readings: Tensor | list[float]) -> list[float]:
    return readings.tolist() if isinstance(readings, Tensor) else readings


@pytest.fixture(name="listen")
def _listen() -> Iterable[type[Listener]]:
    made: list[Listener] = []

    def listen(model: torch.nn.Module, named: dict[str, str] | None = None) -> Listener:
        made.append(Listener(model, named))
        return made[-1]

    yield listen  # ty: ignore[invalid-yield]
    for listener in made:
        listener.stop()
