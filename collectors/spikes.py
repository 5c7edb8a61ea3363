"""Observers of spiking layers: one forward hook each, which reduces at once and keeps no tensor."""

import time
import weakref
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from spikewatch.layers import Layer
from spikewatch.observing import Counts, Session

from .amplitudes import read_amplitudes
from .axes import Axes, infer_axes
from .gradient_counts import GradientCounts
from .hooks import Hook, in_recomputation, saved_tensors_are_hooked
from .levels import looks_like_spikes
from .library import Library, first_tensor
from .recognise import Found, find_spiking
from .spike_counts import SpikeCounts
from .surrogate import surrogate_nodes


def find(
    model: nn.Module, *, named: Mapping[str, str], taken: frozenset[str]
) -> Sequence["SpikeObserver"]:
    """An observer for each spiking layer and each candidate (see `recognise`)."""
    claims: set[int] = set()
    found = [f for f in find_spiking(model, named=named) if f.name not in taken]
    return [SpikeObserver(f, claims) for f in found]


class SpikeObserver:
    """Watches one spiking layer, or a candidate until it is known what it is."""

    def __init__(self, found: Found, claims: set[int]) -> None:
        self.layer = Layer(
            name=found.name,
            kind=found.kind,
            library=found.library.name,
            type=type(found.module).__name__,
            note=found.note,
        )
        self._module = weakref.ref(found.module)
        self._library: Library = found.library
        self._axes = found.axes
        # Known libraries say what their classes are; of others the values are looked at as well.
        self._sure = found.library.name != "user" or found.note == "named by hand"
        self._claims = claims
        self._handle: Any = None
        self._session: Session | None = None
        self._spikes: dict[str, SpikeCounts] = defaultdict(SpikeCounts)
        self._gradients: dict[str, GradientCounts] = defaultdict(GradientCounts)

    def start(self, session: Session) -> None:
        """Put the forward hook on."""
        self._session = session
        if (module := self._module()) is not None:
            self._handle = module.register_forward_hook(Hook(self._on_forward))

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
        if not session.active:
            return
        began = time.perf_counter()
        try:
            spikes = self._library.spikes(output)
            if spikes is not None:
                self._observe(session, module, args, spikes)
        except Exception as error:  # noqa: BLE001 - contract 1: never raise into training
            session.fault(self.layer.name, error)
        session.spent(time.perf_counter() - began)

    def observe_tensor(self, spikes: Tensor) -> None:
        """Count a tensor that the user taps instead of a module's output."""
        if (session := self._session) is None:
            return
        session.touch()
        if session.active:
            began = time.perf_counter()
            try:
                self._observe(session, None, (), spikes)
            except Exception as error:  # noqa: BLE001 - contract 1
                session.fault(self.layer.name, error)
            session.spent(time.perf_counter() - began)

    def _observe(
        self, session: Session, module: nn.Module | None, args: tuple[Any, ...], spikes: Tensor
    ) -> None:
        nodes = surrogate_nodes(spikes) if spikes.requires_grad else []
        if not self._sure and not self._decide(session, args, spikes, nodes):
            return
        if module is not None and self._library.name != "user":
            axes = self._library.axes(module, spikes)
        else:
            if not self._axes and nodes:
                self._axes = infer_axes(spikes, nodes)
            axes = self._axes or "B*"
        where = Axes.parse(axes, rank=spikes.dim())
        phase = session.phase()
        again = in_recomputation()
        if not again and not self._spikes[phase].add(spikes.detach(), where.dims):
            session.note(
                self.layer.name,
                f"its neurons changed to shape {tuple(spikes.shape)}; counting began anew. "
                "A layer that several sites share, or inputs of varying length, do this.",
            )
        gradients = self._gradients[phase]
        if nodes and not saved_tensors_are_hooked():
            gradients.add_surrogate(spikes, nodes, where)
        gradients.watch_backward(spikes)

    def _decide(
        self, session: Session, args: tuple[Any, ...], spikes: Tensor, nodes: list[Any]
    ) -> bool:
        """Whether a layer of unknown make has shown that it makes spikes; settles it at last."""
        if self.layer.kind == "candidate":
            if not spikes.requires_grad:
                return False
            nodes = self._own_nodes(args, nodes)
            if not nodes:
                return self._settle(session, spiking=False, why="its output is not made by one")
        verdict = looks_like_spikes(spikes)
        if verdict is False:
            return self._settle(session, spiking=False, why="its output takes many values")
        # Too few events to be sure: counted all the same, or a silent layer would go unseen.
        self._sure = verdict is True
        return self._settle(session, spiking=True)

    def _own_nodes(self, args: tuple[Any, ...], nodes: list[Any]) -> list[Any]:
        inputs = [t for a in args if (t := first_tensor(a)) is not None and t.requires_grad]
        others = {id(n) for t in inputs for n in surrogate_nodes(t)} | self._claims
        own = [n for n in nodes if id(n) not in others]
        # Hooks of inner modules run first: what they claim is not their parent's.
        self._claims.update(id(n) for n in own)
        return own

    def _settle(self, session: Session, *, spiking: bool, why: str = "") -> bool:
        if not spiking:
            self.stop()
            session.note(self.layer.name, f"not counted as a spiking layer: {why}")
        elif self.layer.kind == "candidate":
            self.layer = replace(self.layer, kind="spiking", note="made by an autograd function")
            session.confirm(self.layer)
        return spiking

    def flush(self, phase: str) -> Counts | None:
        """Counters of `spikes`, `gradients` and `amplitudes`."""
        self._claims.clear()
        spikes = self._spikes[phase].flush()
        gradients = self._gradients[phase].flush()
        if spikes is None and gradients is None:
            return None
        tables = {"spikes": spikes, "gradients": gradients}
        counts = Counts({name: c for name, c in tables.items() if c is not None})
        if (module := self._module()) is not None and self.layer.kind != "tap":
            with torch.no_grad():
                amplitudes, counts.histograms = read_amplitudes(module, self._library)
            if amplitudes:
                counts.tables["amplitudes"] = amplitudes
        return counts
