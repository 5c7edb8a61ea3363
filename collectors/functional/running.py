"""Whose function calls are heard: which of a model's modules runs now, in each thread."""

import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import CodeType, FrameType, FunctionType
from typing import Any

import torch
from torch import nn

from spikewatch.layers import own_type
from spikewatch.observing import Session

from ..calls import Subject
from ..candidates import Made
from ..hooks import Hook, in_recomputation, why_unreadable
from ..library import Library
from ..reachable import functions_of, reaches_tap
from ..recognise import Found
from ..samples.kept_state import KeptState, keeps_state
from .inside import Inside, Pass
from .listening import FunctionCall, listen, unlisten
from .places import caller, place_of
from .sources import Weights


_MOST_FRAMES = 40


class Ear:
    """Hears the functions that one module calls within its forward."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        functions: frozenset[Any],
        running: "Running",
        subject: Callable[[Library], Subject],
        *,
        weighs: bool = False,
    ) -> None:
        self.name = name
        self.module = weakref.ref(module)
        weights = running.weights
        self.inside = Inside(name, self.module, functions, weights, subject, weighs=weighs)
        self.loose = Pass()
        """Of calls outside of any pass that a hook has seen."""
        forward = getattr(own_type(module), "forward", None)
        self.forward: CodeType | None = getattr(forward, "__code__", None)
        self._kept = KeptState() if keeps_state(module) else None
        self._running = running
        self._handles: list[Any] = []

    @property
    def made(self) -> Mapping[Any, Made]:
        """What functions have made in the pass that runs in this thread, by the nodes."""
        runs = next((p for ear, p in reversed(self._running.stack) if ear is self), None)
        return {} if runs is None else self.inside.made(runs)

    def start(self, session: Session, owner: Any) -> None:
        """Listen, as long as there is something to hear."""
        module = self.module()
        if self._handles or module is None or not self.inside.live:
            return
        leave = Hook(self._leave, owner)
        self._handles = [
            module.register_forward_pre_hook(Hook(self._enter, owner)),
            module.register_forward_hook(leave, always_call=True),
        ]
        self._running.start(self, session)

    def stop(self) -> None:
        """Listen no more."""
        if self._handles:
            for handle in self._handles:
                handle.remove()
            self._handles = []
            self._running.stop(self)

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:  # noqa: ARG002
        runs = Pass(trains=torch.is_grad_enabled())
        self._running.stack.append((self, runs))
        if self._kept is not None and (session := self._running.reads_closely) is not None:
            try:
                runs.begins = self._kept.enter(session, self.name, module)
                if runs.begins is not None:
                    self._running.told = session.n_forwards, runs.begins
            except Exception as error:  # noqa: BLE001 - contract 1: never raise into training
                session.fault(self.name, error)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG002
        stack = self._running.stack
        if not any(ear is self for ear, _ in stack):
            return
        ear, runs = stack.pop()
        while ear is not self:
            ear, runs = stack.pop()  # what an exception left behind
        session = self._running.reads_closely
        if self._kept is None or session is None or not runs.shape:
            return
        try:
            self._kept.leave(session, module, runs.shape, has_graph=runs.has_graph)
        except Exception as error:  # noqa: BLE001 - contract 1: never raise into training
            session.fault(self.name, error)


def ear_of(found: Found, running: "Running", subject: Callable[[Library], Subject]) -> Ear | None:
    """What hears the functions that a module calls; where it taps them it is told already."""
    functions = functions_of(found.module)
    if found.surrogate is not None:
        functions |= functions_of(found.surrogate)
    if not functions or reaches_tap(found.module):
        return None
    return Ear(found.name, found.module, functions, running, subject)


class Running:
    """The modules of one model that call functions, and the calls that reach them."""

    def __init__(self, model: nn.Module) -> None:
        self.weights = Weights(model)
        self._neurons: set[int] = set()
        self._ears: dict[int, Ear] = {}
        self._all_ears: weakref.WeakKeyDictionary[nn.Module, Ear] = weakref.WeakKeyDictionary()
        self._wanted: Counter[Any] = Counter()
        self._codes: set[CodeType] = set()
        self._local = threading.local()
        self._session: Session | None = None
        self.told: tuple[int, bool] | None = None
        """In which forward pass a state without a graph told whether a sample begins with it."""
        self._loose_pass: tuple[int, int | None] | None = None

    def follow(self, model: nn.Module, neurons: Iterable[nn.Module]) -> None:
        """Take the model as it is now, and the neurons whose functions are heard as modules."""
        self.weights.follow(model)
        self._neurons = {id(part) for neuron in neurons for part in nn.Module.modules(neuron)}

    @property
    def stack(self) -> list[tuple[Ear, Pass]]:
        """The ears whose modules run in this thread, outermost first, each with its pass."""
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        return self._local.stack

    @property
    def reads_closely(self) -> Session | None:
        """The session, in a step with the dear readings outside of a recomputation, else None."""
        session = self._session
        close = session is not None and session.active and session.detailed
        return session if close and not in_recomputation() else None

    def start(self, ear: Ear, session: Session) -> None:
        """An ear listens from now on."""
        self._session = session
        module = ear.module()
        if module is not None:
            self._ears[id(module)] = self._all_ears[module] = ear
            self._codes |= _codes(own_type(module))
        self._wanted.update(ear.inside.functions)
        listen(ear.inside.functions, self)

    def stop(self, ear: Ear) -> None:
        """An ear listens no more."""
        self._wanted.subtract(ear.inside.functions)
        unlisten(frozenset(f for f in ear.inside.functions if not self._wanted[f]), self)
        self._ears = {k: e for k, e in self._ears.items() if e is not ear}
        self.stack[:] = [x for x in self.stack if x[0] is not ear]

    def hear(self, call: FunctionCall) -> None:
        """Take a call to the module that made it."""
        session = self._session
        if session is None or not session.active:
            return
        began = time.perf_counter()
        try:
            session.touch()
            if torch.is_inference_mode_enabled():
                with torch.inference_mode(False):
                    self._take(session, call)
            else:
                self._take(session, call)
        except Exception as error:  # noqa: BLE001 - contract 1: never raise into training
            session.fault("", error)
        session.spent(time.perf_counter() - began)

    def _take(self, session: Session, call: FunctionCall) -> None:
        if why_unreadable(call.output):
            return
        frame = caller()
        ear, runs = self.stack[-1] if self.stack else self._loose(session, frame, call)
        if ear is None or not ear.inside.live or call.function not in ear.inside.functions:
            return
        if runs.begins is None and self.told is not None and self.told[0] == session.n_forwards:
            runs.begins = self.told[1]
        place, module = place_of(frame, ear.forward)
        if not self._is_neuron(module):
            ear.inside.hear(session, call, frame, place, runs)

    def _is_neuron(self, module: Any) -> bool:
        """Whether a module's functions are read as its own output."""
        if module is None or id(module) in self._neurons:
            return module is not None
        ear = self._all_ears.get(module)
        return ear is not None and ear.inside.settled is False and ear.inside.sure

    def _loose(
        self, session: Session, frame: FrameType | None, call: FunctionCall
    ) -> tuple[Ear | None, Pass]:
        """Who made a call outside of any pass that a hook has seen: `layer.forward(x)`."""
        for _ in range(_MOST_FRAMES):
            if frame is None:
                break
            if frame.f_code in self._codes:
                module = frame.f_locals.get(frame.f_code.co_varnames[0])
                ear = self._ears.get(id(module))
                if ear is not None:
                    self._begin_loose(session)
                    return ear, ear.loose
            frame = frame.f_back
        able = [e for e in self._ears.values() if call.function in e.inside.functions]
        again = in_recomputation() and len(able) == 1
        return (able[0], able[0].loose) if again else (None, Pass())

    def _begin_loose(self, session: Session) -> None:
        # Steps may end within a forward pass of the model, which goes on.
        now = session.n_forwards, None if session.root_pass.runs else session.step
        if now != self._loose_pass:
            self._loose_pass = now
            for ear in self._ears.values():
                ear.loose = Pass()


def _codes(cls: type) -> set[CodeType]:
    """The code of a class's own methods."""
    mine = [c for c in cls.__mro__ if c.__module__.partition(".")[0] not in ("torch", "builtins")]
    methods = [v for c in mine for v in vars(c).values() if isinstance(v, FunctionType)]
    return {m.__code__ for m in methods if m.__code__.co_argcount}
