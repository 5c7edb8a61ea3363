"""Watch: the life of one attached model. start → step → flush → close."""

import contextlib
import os
import platform
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from . import process
from .alerts.actions import Dispatcher
from .errors import StoreError
from .layers import Layer
from .observing import Counts, Observer, load_hook, load_tap
from .recorder import Recorder, utc_now
from .sampling import Sampler
from .session import LiveSession
from .snapshot import take
from .steps import StepClock
from .unseen import NOTHING_FOUND, Unseen


def open_watches() -> list["Watch"]:
    """The watches of this process that are not closed."""
    return [w for w in process.still_open() if isinstance(w, Watch)]


class Watch:
    """One watched model. Made by `spikewatch.attach()`.

    Attributes:
        run: Name of the run.
        dir: The runs folder.
    """

    def __init__(
        self,
        model: nn.Module,
        observers: Sequence[Observer],
        recorder: Recorder,
        dispatcher: Dispatcher,
        sampler: Sampler,
        *,
        run: str,
        folder: Path,
    ) -> None:
        self.run = run
        self.dir = folder
        self._model = weakref.ref(model)
        self._observers = list(observers)
        self._taps: dict[str, Any] = {}
        self._recorder = recorder
        self._dispatcher = dispatcher
        self._sampler = sampler
        self._session = LiveSession(recorder)
        self._unseen = Unseen(model, self._session)
        self._train_active = False  # what `active` is again once an evaluation has ended
        self._n_evals = 0  # forward passes of the evaluation that goes on
        self._root_hooks: list[Any] = []
        self._listening = (False, False)  # whether the observers' hooks are on; all of them
        self._sees = True  # a forward pass was seen in this step
        self._root_is_called = False  # then the root's hooks see every forward pass
        self._replicas = threading.Lock()
        self._n_replicas = 0  # of DataParallel, that run now
        self._clock: StepClock | None = None
        self._closed = False

    # ---------------------------------------------------------------- the user's side

    @property
    def step(self) -> int:
        """Number of the current step, from 0."""
        return self._session.step

    @property
    def layers(self) -> list[Layer]:
        """What is watched, in the model's order."""
        watched = (*self._observers, *self._taps.values())
        return [o.layer for o in watched if o.layer.kind != "synapse"]

    @property
    def should_stop(self) -> bool:
        """Whether an alert fired whose rule asks for training to stop."""
        return self._dispatcher.should_stop

    def log(self, **scalars: float | Tensor) -> None:
        """Store scalars of the current step: `watch.log(loss=loss, accuracy=0.9)`.

        Called after `optimizer.step()` they belong to the step that just ended.

        Args:
            scalars: Numbers, or tensors with one element.
        """
        if self._recorder.muted:
            return
        self._raise_if_asked()
        if self._closed:
            late = RuntimeError(f"log() was called after run {self.run!r} was closed")
            self._session.fault("", late)
            return
        fresh = self._clock is not None and self._clock.fresh
        step = self.step if fresh or self.step == 0 else self.step - 1
        phase = "train" if torch.is_grad_enabled() else "eval"
        for name, value in scalars.items():
            try:
                number = float(value.detach() if isinstance(value, Tensor) else value)
            except (TypeError, ValueError, RuntimeError) as error:
                self._session.fault(name, error)
                continue
            self._recorder.record("scalars", phase=phase, step=step, name=name, value=number)

    def detach(self) -> None:
        """Take every hook off the model; what was observed stays, `log` still works."""
        if self._clock is None:
            return
        self._flush("train")
        self._flush("eval")
        for handle in self._root_hooks:
            handle.remove()
        for observer in self._observers:
            observer.stop()
        self._listening = (False, False)
        self._stop_clock()
        self._recorder.event("detached", "hooks taken off the model", step=self.step)

    def close(self) -> None:
        """Flush what is pending, end the run, and feed DuckDB if nobody else does."""
        self._close("closed", "the run ended")

    def close_after(self, error: BaseException) -> None:
        """`close()`, with the exception that ended the training in the record."""
        self._close("exception", f"{type(error).__name__}: {error}")

    def leave_to_parent(self) -> None:
        """Do nothing more: this process is a fork of the one that trains."""
        self._closed = True
        self._recorder.muted = True
        self._stop_clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.close_after(error)

    # ---------------------------------------------------------------- life

    @property
    def in_forward(self) -> bool:
        """Whether a forward pass of the model runs now."""
        return self._session.root_phase is not None

    def watches(self, model: nn.Module) -> bool:
        """Whether `model` is the one that is watched."""
        return self._model() is model and self._clock is not None

    def start(self, every: int | str) -> None:
        """Put the hooks on and start writing. Called once, by `attach()`."""
        model = self._model()
        assert model is not None  # noqa: S101 - `attach()` holds it
        self._recorder.on_wake = self._unseen.look
        self._recorder.start()
        self._recorder.record(
            "runs",
            host=platform.node(),
            pid=os.getpid(),
            script=" ".join(sys.argv)[:1000],
            every=str(every),
            torch_version=str(torch.__version__),
            spikewatch_version=_version(),
        )
        self._recorder.event("attached", f"{len(self.layers)} layers", step=0)
        self._clock = StepClock(model, self._end_step, self._see_nothing)
        self._session.on_touch = self._clock.see_forward
        hook = load_hook()
        self._root_hooks = [
            model.register_forward_pre_hook(hook(self._before_root)),
            model.register_forward_hook(hook(self._after_root), always_call=True),
        ]
        for observer in self._observers:
            self._session.place(observer.layer)
            if observer.layer.kind not in ("candidate", "synapse"):
                self._session.confirm(observer.layer)
        self._train_active = self._observe(0)
        self._listen(True)
        weakref.finalize(model, self._model_is_gone).atexit = False
        process.remember(self)

    def _close(self, kind: str, message: str) -> None:
        if self._closed:
            if not self._recorder.muted:
                self._recorder.close()  # which was not waited for where the model was freed
            return
        self._closed = True
        process.forget(self)
        self.detach()
        self._recorder.event(kind, message, step=self.step)
        self._recorder.close()
        self._feed_store()

    def _feed_store(self) -> None:
        import duckdb

        from .store import open_store

        # Who does not get DuckDB's lock leaves the feeding to the one who has it; the journal
        # holds everything, so nothing is lost when this fails.
        with (
            contextlib.suppress(StoreError, OSError, duckdb.Error),
            open_store(self.dir) as store,
        ):
            if not store.is_replica:
                store.refresh()

    def _model_is_gone(self) -> None:
        # Runs inside the garbage collector: nothing here may wait.
        if self._closed:
            return
        self._closed = True
        self._stop_clock()
        self._recorder.event("closed", "the model was freed", step=self.step)
        self._recorder.on_end = partial(process.forget, self)  # or the process may end too early
        self._recorder.close(timeout_s=0)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.stop()
            self._clock = None
        self._session.on_touch = None
        self._session.active = False

    # ---------------------------------------------------------------- steps

    def _before_root(self, module: nn.Module, *_: Any) -> None:
        clock, session = self._clock, self._session
        if clock is None:
            return
        try:
            training = module.training and torch.is_grad_enabled()
            if "_is_replica" in vars(module):
                self._before_replica("train" if training else "eval")
                return
            step_ended = clock.before_forward()
            session.root_phase = "train" if training else "eval"
            session.n_forwards += 1
            self._root_is_called = True
            if training:
                # What an evaluation counted is flushed when the step ends: one row for each step.
                session.active = self._train_active
            elif not step_ended:
                # Evaluation is sampled by its own forward passes; the first one is observed.
                self._observe(self._n_evals)
                self._n_evals += 1
            self._listen(session.active)
            clock.see_forward()
        except Exception as error:  # noqa: BLE001 - contract 1
            session.fault("", error)

    def _before_replica(self, phase: str) -> None:
        """DataParallel: replicas share the hooks, and run side by side, in threads of their own."""
        session = self._session
        with self._replicas:
            self._n_replicas += 1
            if self._n_replicas == 1:
                session.root_phase = phase
                session.n_forwards += 1
        session.touch()

    def _after_root(self, module: nn.Module, *_: Any) -> None:
        if "_is_replica" in vars(module):
            with self._replicas:
                self._n_replicas -= 1
                if self._n_replicas:
                    return
        self._session.root_phase = None

    def _end_step(self) -> None:
        session = self._session
        session.root_phase = None  # a forward pass that was interrupted left it
        try:
            began = time.perf_counter()
            if self._train_active:
                self._flush("train")
                if session.step == 0 and all(x.kind == "candidate" for x in self.layers):
                    session.note("", NOTHING_FOUND, aloud=True)
                elif self._sees:
                    self._unseen.after_step(self._observers)
            self._sees = True
            if session.eval_pending:
                self._flush("eval")
            session.step += 1
            own_s = session.spent_s + time.perf_counter() - began
            self._sampler.spent(own_s + self._recorder.take_cpu_s())
            session.spent_s = 0.0
            self._train_active = self._observe(session.step)
            if not self._root_is_called:
                self._listen(True)
        except Exception as error:  # noqa: BLE001 - contract 1
            session.fault("", error)
        self._raise_if_asked()

    def _observe(self, step: int) -> bool:
        """Ask the sampler whether what comes next is observed, and how closely."""
        self._session.active = self._sampler.observe(step)
        self._session.detailed = self._sampler.detailed()
        return self._session.active

    def _listen(self, on: bool) -> None:
        """Put the observers' hooks on, or take them off: a hook that returns at once costs, too.

        They are off between observed steps only where the root's own hooks tell of each forward
        pass. Where parts of a model are called by themselves, they stay on.
        """
        wanted = (on, on and self._session.detailed)
        if wanted == self._listening:
            return
        self._listening = wanted
        for observer in self._observers:
            # Where a compiler came by, hooks that come and go would have it compile once more.
            if not getattr(observer, "always_on", False):
                observer.stop()
            if on:
                observer.start(self._session)

    def _see_nothing(self) -> None:
        if self._listening[0]:
            self._sees = False
            self._unseen.blind()
        else:  # the root was called at first, and its parts are now
            self._root_is_called = False
            self._listen(True)

    def _flush(self, phase: str) -> None:
        with torch.inference_mode(False):  # a step may end inside of it, by the next forward
            self._submit(phase)

    def _submit(self, phase: str) -> None:
        counts: list[tuple[str, Counts]] = []
        for observer in (*self._observers, *self._taps.values()):
            counted = observer.flush(phase)
            if counted is not None:
                name = observer.layer.name
                counts.append((name, counted))
                counts += [(name + suffix, site) for suffix, site in counted.sites.items()]
        if phase == "eval":
            self._session.eval_pending, self._n_evals = False, 0
        if counts:
            rank = self._recorder.rank
            snapshot = take(
                counts, run=self.run, rank=rank, phase=phase, step=self.step, at=utc_now()
            )
            self._recorder.submit(snapshot)

    def _raise_if_asked(self) -> None:
        error = self._dispatcher.pending_error
        if error is not None:
            self._dispatcher.pending_error = None
            raise error

    def observe_tap(self, name: str, tensor: Tensor) -> None:
        """Watch a tensor that the user taps; see `spikewatch.tap`."""
        if self._clock is None:
            return
        tapped = self._taps.get(name)
        if tapped is None:
            tapped = self._taps[name] = load_tap()(name)
            tapped.start(self._session)
            self._session.confirm(tapped.layer)
        tapped.observe_tensor(tensor)


def _version() -> str:
    from importlib.metadata import version

    return version("spikewatch")
