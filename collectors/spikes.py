"""Observers of spiking layers: hooks that turn forward calls into `Call`s, and keep no tensor."""

import logging
import time
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikewatch.layers import Layer, own_type
from spikewatch.observing import Counts, Session
from spikewatch.unseen import PATIENCE_OPEN_STEPS

from .axes import Axes
from .calls import Call, Subject
from .candidates import Candidate, Evidence, Named
from .functional.places import caller_of_module, place_of
from .functional.running import Ear, Running
from .hooks import Hook, why_unreadable
from .inferred_axes import Inferred
from .layer_reader import LayerReader
from .left_behind import LeftBehind
from .libraries import user
from .library import Library, unknown_start
from .reachable import functions_of, reaches_tap
from .recognise import BY_HAND, Found, find_spiking, output_widths
from .surrogate import surrogate_nodes
from .unregistered import why_unwatched


_log = logging.getLogger("spikewatch")
_NO_KEYWORDS: Mapping[str, Any] = {}
_CONFIRMED = {
    "class": "",
    "code": "made by an autograd function",
    "threshold": "has a threshold, and its output is spikes",
}
_OPEN = (
    "not counted yet: whether it makes spikes is open, since in {n} observed steps or evaluations "
    "it {why}. If it does, {what}"
)
_NAME_IT = "name it: attach(model, layers=[its name])"
_TAP_THEM = "pass them through spikewatch.tap('name', spikes)"


def find(
    model: nn.Module, *, named: Mapping[str, str], taken: frozenset[str]
) -> Sequence["SpikeObserver"]:
    """An observer for each spiking layer and each candidate (see `recognise`)."""
    claims: weakref.WeakSet[Any] = weakref.WeakSet()
    found = [f for f in find_spiking(model, named=named) if f.name not in taken]
    running = Running(model, [f.module for f in found if f.sure])
    widths = output_widths(model)
    spiking: set[type] = set()
    observers = [SpikeObserver(f, claims, running, widths, spiking) for f in found]
    if unwatched := why_unwatched(model):
        if observers:
            observers[0].of_the_model = unwatched
        else:  # there may be no run in which to note it
            _log.warning("spikewatch: %s.", unwatched)
    return observers


class SpikeObserver:
    """Watches one spiking layer, or a candidate until it is known what it is."""

    def __init__(
        self,
        found: Found,
        claims: weakref.WeakSet[Any],
        running: Running | None = None,
        widths: frozenset[int] = frozenset(),
        spiking: set[type] | None = None,
    ) -> None:
        """Take what was found, and what the observers of a model share.

        Args:
            found: The layer.
            claims: The nodes that inner layers claim.
            running: Who calls functions.
            widths: How many outputs the model's layers have.
            spiking: Classes that have shown to make spikes.
        """
        self.layer = Layer(
            name=found.name,
            kind=found.kind,
            library=found.library.name,
            type=own_type(found.module).__name__,
            note=found.note,
        )
        self.called: bool | None = False
        self.always_on = False
        self.waits = False
        """Whether it was called, and nothing could be said yet of what it makes."""
        self.of_the_model = ""
        """What is to be told, once, of the model as a whole."""
        self._module = weakref.ref(found.module)
        self._library = found.library
        self._inferred = Inferred(found.axes, self._tell, self._module_if_read, widths)
        self._is_derived = not found.sure  # by a user, from a library's class
        by: Evidence = "library" if found.nested else found.by
        self._candidate = Candidate(
            found_by=by,
            claims=claims,
            cls=own_type(found.module),
            spiking=set() if spiking is None else spiking,
        )
        self._candidate.sure = (found.sure and not found.nested) or found.note == BY_HAND
        self._named = Named() if found.note == BY_HAND else None
        self._by = found.by
        self._open_phases: set[str] = set()  # of calls since the last flush that were not counted
        self._n_open_steps = 0
        self._handles: list[Any] = []
        self._session: Session | None = None
        self._rejected = False
        self._subject = Subject(
            found.library,
            self._module_if_read,
            self._tell,
            self._spent,
            fault=self._fault,
            widths=widths,
            optimizes=self._optimizes,
            is_gate=found.is_gate,
        )
        self._further_sites: set[str] = set()
        self._reader = LayerReader(self._subject, self._confirm_site)
        self._ear = (
            None
            if running is None or found.sure or self._candidate.sure
            else self._ear_of(found, running)
        )
        self._starts: bool | None = None
        self._left = LeftBehind() if found.library is user.LIBRARY else None

    def _ear_of(self, found: Found, running: Running) -> Ear | None:
        """What hears the functions that the module calls; where it taps them it is told already."""
        functions = functions_of(found.module)
        if found.surrogate is not None:
            functions |= functions_of(found.surrogate)
        if not functions or reaches_tap(found.module):
            return None
        return Ear(found.name, found.module, functions, running, self._inner_subject)

    def _inner_subject(self, library: Library) -> Subject:
        return replace(self._subject, library=library, dead=None, step=None)

    @property
    def inner_layers(self) -> Sequence[Layer]:
        """Layers that are functions, called within this module."""
        return [] if self._ear is None else self._ear.inside.layers

    # ------------------------------------------------------------------------------------- life

    def start(self, session: Session) -> None:
        """Put the hooks on."""
        self._session = session
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
        if session.detailed and self._library.starts_sample is not unknown_start:
            before = Hook(self._before_forward, self)
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
        if phase in self._open_phases:
            self._open_phases.remove(phase)
            self._wait()
            counts = None  # the step in which the layer is known at last was counted in part only
        if self._ear is None or self._session is None:
            return counts
        if inner := self._ear.inside.flush(self._session, phase):
            self.called = None  # it is seen, though its own forward may be called by hand
            return Counts({}, sites=inner)
        return counts

    def forget(self, phase: str) -> None:
        """Drop what was counted since the last flush."""
        self._reader.forget(phase)
        self._open_phases.discard(phase)
        if self._ear is not None and self._session is not None:
            self._ear.inside.flush(self._session, phase)

    def _wait(self) -> None:
        """A step, or evaluation, has ended in which it was open what the layer makes."""
        self._n_open_steps += 1
        if self.waits and self._n_open_steps == PATIENCE_OPEN_STEPS:
            n, why = self._n_open_steps, self._candidate.why
            what = _NAME_IT if self.layer.name else _TAP_THEM
            self._tell(_OPEN.format(n=n, why=why, what=what), aloud=self._candidate.is_silent)

    def _module_if_read(self) -> nn.Module | None:
        return None if self.layer.kind == "tap" else self._module()

    def _tell(self, message: str, *, aloud: bool = False) -> None:
        if self._session is not None:
            self._session.note(self.layer.name, message, aloud=aloud)

    def _spent(self, seconds: float) -> None:
        if self._session is not None:
            self._session.spent(seconds)

    def _optimizes(self, parameter: Tensor) -> bool:
        return self._session is not None and self._session.optimizes(parameter)

    def _fault(self, error: Exception) -> None:
        if self._session is not None:
            self._session.fault(self.layer.name, error)

    # ------------------------------------------------------------------------------------ hooks

    def _before_forward(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] = _NO_KEYWORDS
    ) -> None:
        # Of a model that is a neuron itself, the root's hook may take this one off just now. Then
        # torch calls it nevertheless, and without the keyword arguments.
        session = self._session
        if session is None or not session.active:
            return
        try:
            starts = self._library.starts_sample(module, args, kwargs)
            if self._left is not None:
                call = (module, args, kwargs)
                starts = self._left.starts(session, self.layer.name, call, starts)
            self._starts = session.begins_sample(self.layer.name, starts)
        except Exception as error:  # noqa: BLE001 - contract 1: never raise into training
            session.fault(self.layer.name, error)

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
                output = self._named.spikes_first(output, partial(self._tell, aloud=True))
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
        layout, unfold = self._layout(module, spikes)
        values = spikes.detach() if unfold is None else unfold(spikes.detach())
        axes = Axes.parse(layout, rank=values.dim())
        if unfold is None and self._reader.read_alike(session, spikes, values, axes):
            self._starts = None
            return
        if self._library.spike_times:
            values = values.isfinite().to(values.dtype)  # one event for each neuron that fires
        starts, self._starts = self._starts, None
        if self._left is not None and module is not None and session.detailed:
            self._left.leave(session, module, output)
        self._reader.read(
            session,
            Call(
                spikes,
                values,
                axes,
                starts_sample=starts,
                find_nodes=partial(surrogate_nodes, spikes),
                module=module,
                inputs=args,
                output=output,
                unfold=unfold,
                place=self._place(session, module, output, starts=starts),
            ),
        )

    def _place(
        self, session: Session, module: nn.Module | None, output: Any, *, starts: bool | None
    ) -> Hashable:
        """Where a module was called that is a function rather than a neuron: it keeps no state."""
        if not session.detailed or starts is not None or module is None or self._left is None:
            return None
        if user.states_after(module, output):
            return None
        chain, owner = place_of(caller_of_module(), None)
        return None if owner is None else (chain, id(owner))

    def _confirm_site(self, suffix: str) -> None:
        """Store a further site, once: it is found in each phase, and anew where shapes change."""
        if self._session is not None and suffix not in self._further_sites:
            self._further_sites.add(suffix)
            name, note = self.layer.name + suffix, f"{self.layer.name!r} at another site"
            self._session.confirm(replace(self.layer, name=name, note=note))

    def _layout(
        self, module: nn.Module | None, spikes: Tensor
    ) -> tuple[str, Callable[[Tensor], Tensor] | None]:
        """Axes, and what gives time and batch axes of their own where they share one."""
        library = self._library
        if module is None or library.name == "user":
            return self._inferred.layout(spikes)
        axes = library.axes(module, spikes)
        if library.unfold is not None:
            return axes, partial(library.unfold, module)
        return self._inferred.layout_beside(axes, spikes) if self._is_derived else (axes, None)

    def _decide(self, session: Session, args: tuple[Any, ...], spikes: Tensor) -> bool:
        nodes = surrogate_nodes(spikes) if spikes.requires_grad else []
        if self._ear is not None:
            nodes = [n for n in nodes if n._forward_cls in self._ear.inside.functions]
        made = {} if self._ear is None else self._ear.made
        with torch.no_grad():
            verdict = self._candidate.judge(args, spikes, nodes, made)
        self.waits = verdict == "wait"
        if self.waits:
            self._open_phases.add(session.phase())
        elif verdict == "no":
            self._reject(session)
        elif verdict == "yes":
            if self._ear is not None:
                self._ear.inside.settle(inner=False, sure=self._candidate.sure)
                if self._candidate.sure:
                    self._ear.stop()
            if self.layer.kind == "candidate":
                note = self._candidate.why or _CONFIRMED[self._by]
                self.layer = replace(self.layer, kind="spiking", note=note)
                session.confirm(self.layer)
        return verdict == "yes"

    def _reject(self, session: Session) -> None:
        """The module's output is not the spikes; those that are made within it are layers then."""
        self._rejected, self.called = True, None
        for handle in self._handles:
            handle.remove()
        self._handles = []
        why = f"not counted as a spiking layer: {self._candidate.why}"
        if self._ear is not None:
            self._ear.inside.settle(inner=True)
            why += ". What functions make within it is counted, where it is spikes"
        session.note(self.layer.name, why)
        if self.layer.kind == "spiking":  # as it was stored, when it was found
            self.layer = replace(self.layer, kind="candidate", note=why)
            session.confirm(self.layer)
