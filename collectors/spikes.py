"""Observers of spiking layers: hooks that turn forward calls into `Call`s, and keep no tensor."""

import logging
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikewatch.layers import Layer, named_modules
from spikewatch.observing import Counts, Observer, Session

from .calls import Call, Subject
from .candidates import Named
from .functional import weighted
from .functional.running import ear_of
from .functional.weighted import WeightedObserver
from .hooks import Hook, why_unreadable
from .layer_reader import LayerReader
from .layouts.axes import Axes
from .layouts.layout import Layout
from .library import Library
from .recognise import BY_HAND, Found, find_spiking
from .samples.beginnings import Beginnings
from .shared import Shared
from .standing import Standing
from .surrogate import surrogate_nodes
from .unregistered import why_unwatched


_log = logging.getLogger("spikewatch")


def find(
    model: nn.Module,
    *,
    named: Mapping[str, str],
    taken: frozenset[str],
    known: Sequence[Observer] = (),
) -> Sequence[Observer]:
    """An observer for each spiking layer and each candidate (see `recognise`).

    And for each layer with weights that may make spikes of its input.
    """
    every = find_spiking(model, named=named)
    found = [f for f in every if f.name not in taken]
    before = (o.shared for o in known if isinstance(o, SpikeObserver | WeightedObserver))
    shared = next(before, None) or Shared(model)
    shared.follow(model, [f.module for f in every if f.sure])
    observers = [SpikeObserver(f, shared) for f in found]
    if not known and (unwatched := why_unwatched(model)):
        if observers:
            observers[0].of_the_model = unwatched
        else:  # there may be no run in which to note it
            _log.warning("spikewatch: %s.", unwatched)
    seen = taken.union(f.name for f in found)
    return [*observers, *weighted.find(named_modules(model), shared, taken=seen)]


class SpikeObserver:
    """Watches one spiking layer, or a candidate until it is known what it is."""

    def __init__(self, found: Found, shared: Shared) -> None:
        """Take what was found, and what the observers of a model share."""
        self.shared = shared
        self.called: bool | None = False
        self.always_on = False
        self.of_the_model = ""
        """What is to be told, once, of the model as a whole."""
        self._module = weakref.ref(found.module)
        self._library = found.library
        self._standing = Standing(found, shared.claims, shared.spiking)
        self._candidate = self._standing.candidate
        self._layout = Layout(
            found, self._standing.tell, self._module_if_read, shared.widths, shared.leading
        )
        self._named = Named() if found.note == BY_HAND else None
        self._handles: list[Any] = []
        self._session: Session | None = None
        self._rejected = False
        self._subject = Subject(
            found.library,
            self._module_if_read,
            self._standing.tell,
            self._standing.spent,
            fault=self._standing.fault,
            widths=shared.widths,
            optimizes=self._standing.optimizes,
            is_gate=found.is_gate,
        )
        self._reader = LayerReader(self._subject, self._standing.confirm_site)
        sure = found.sure or self._candidate.sure
        running = None if sure else shared.running
        self._ear = None if running is None else ear_of(found, running, self._inner_subject)
        self._beginnings = Beginnings(found.library, self._standing)

    @property
    def layer(self) -> Layer:
        """What is watched, as far as it is known."""
        return self._standing.layer

    @layer.setter
    def layer(self, known: Layer) -> None:
        self._standing.layer = known

    @property
    def module(self) -> nn.Module | None:
        """The layer, while it lives."""
        return self._module()

    @property
    def waits(self) -> bool:
        """Whether it was called, and nothing could be said yet of what it makes."""
        return self._standing.waits

    def _inner_subject(self, library: Library) -> Subject:
        return replace(self._subject, library=library, dead=None, step=None)

    @property
    def inner_layers(self) -> Sequence[Layer]:
        """Layers that are functions, called within this module."""
        return [] if self._ear is None else self._ear.inside.layers

    # ------------------------------------------------------------------------------------- life

    def start(self, session: Session) -> None:
        """Put the hooks on."""
        self._session = self._standing.session = session
        if self.of_the_model:
            session.note("", self.of_the_model, aloud=True)
            self.of_the_model = ""
        module = self._module()
        if module is None or self._handles:
            return
        if self._rejected:
            if self._ear is not None:
                self._ear.start(session, self)
            return
        self._handles = [module.register_forward_hook(Hook(self._on_forward, self))]
        # A hook that takes keyword arguments costs ten times as much as one that does not.
        if session.detailed and self._beginnings.asks:
            before = Hook(self._beginnings.before_forward, self)
            self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        if self._ear is not None:  # after our own hook: it has to hear what was made until then
            self._ear.start(session, self)

    def stop(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._ear is not None:
            self._ear.stop()

    def flush(self, phase: str) -> Counts | None:
        """Counters of every instrument; those of further sites of a shared module apart."""
        counts = self._reader.flush(self._session, phase)
        inner = {}
        if self._ear is not None and self._session is not None:
            inner = self._ear.inside.flush(self._session, phase)
        if self._standing.end_step(phase, is_seen=bool(inner)):
            counts = None  # the step in which the layer is known at last was counted in part only
        if inner:
            self.called = None  # it is seen, though its own forward may be called by hand
            return Counts({}, sites=inner)
        return counts

    def forget(self, phase: str) -> None:
        """Drop what was counted since the last flush."""
        self._reader.forget(phase)
        self._standing.forget(phase)
        if self._ear is not None and self._session is not None:
            self._ear.inside.flush(self._session, phase)

    def _module_if_read(self) -> nn.Module | None:
        return None if self.layer.kind == "tap" else self._module()

    # ------------------------------------------------------------------------------------ hooks

    def _on_forward(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        session = self._session
        if session is None:
            return
        session.touch()
        if session.active:
            self.called = True
            self._guarded(session, module, args, output)

    def observe_tensor(self, spikes: Tensor) -> None:
        """Read a tensor that the user taps instead of a module's output."""
        session = self._session
        if session is None:
            return
        session.touch()
        if session.active:
            self._guarded(session, None, (), spikes)

    def _guarded(
        self, session: Session, module: nn.Module | None, args: tuple[Any, ...], output: Any
    ) -> None:
        began = time.perf_counter()
        try:
            if self._named is not None and module is not None:
                output = self._named.spikes_first(output, partial(self._standing.tell, aloud=True))
            spikes = self._library.spikes(output)
            if spikes is None:
                return
            if why := why_unreadable(spikes):
                session.note(self.layer.name, why, aloud=True)
            elif torch.is_inference_mode_enabled():
                with torch.inference_mode(False):  # or our counters could not be added to later
                    self._read(session, module, args, output, spikes)
            else:
                self._read(session, module, args, output, spikes)
        except Exception as error:  # noqa: BLE001 - contract 1: never raise into training
            session.fault(self.layer.name, error)
        session.spent(time.perf_counter() - began)

    # ---------------------------------------------------------------------------------- reading

    def _read(
        self,
        session: Session,
        module: nn.Module | None,
        args: tuple[Any, ...],
        output: Any,
        spikes: Tensor,
    ) -> None:
        if not self._candidate.sure and not self._decide(session, args, spikes):
            return
        laid_out = self._layout.of(module, spikes)
        if laid_out is None:
            self._beginnings.forget()
            return
        layout, unfold = laid_out
        values = spikes.detach() if unfold is None else unfold(spikes.detach())
        axes = Axes.parse(layout, rank=values.dim())
        if unfold is None and self._reader.read_alike(session, spikes, values, axes):
            self._beginnings.forget()
            return
        if self._library.spike_times:
            values = values.isfinite().to(values.dtype)  # one event for each neuron that fires
        starts, place = self._beginnings.answer(session, module, output, spikes)
        self._reader.read(
            session,
            Call(
                spikes,
                values,
                axes,
                starts_sample=starts,
                find_nodes=partial(self._claim_nodes, spikes),
                module=module,
                inputs=args,
                output=output,
                unfold=unfold,
                place=place,
            ),
        )

    def _claim_nodes(self, spikes: Tensor) -> list[Any]:
        """The nodes that made spikes, which no module around this one has made then."""
        nodes = surrogate_nodes(spikes)
        self.shared.claims.update(nodes)
        return nodes

    def _decide(self, session: Session, args: tuple[Any, ...], spikes: Tensor) -> bool:
        ear = self._ear
        heard = () if ear is None else (ear.made, ear.inside.functions)
        verdict = self._standing.judge(session, args, spikes, *heard)
        if verdict == "no":
            self._reject(session)
        elif verdict == "yes" and ear is not None:
            ear.inside.settle(inner=False, sure=self._candidate.sure)
            if self._candidate.sure:
                ear.stop()
        return verdict == "yes"

    def _reject(self, session: Session) -> None:
        """The module's output is not the spikes; those that are made within it are layers then."""
        self._rejected, self.called = True, None
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._ear is not None:
            self._ear.inside.settle(inner=True)
        self._standing.reject(session, hears_functions=self._ear is not None)
