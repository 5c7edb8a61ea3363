"""Watch: the life of one attached model. start → step → flush → close."""

import atexit
import contextlib
import logging
import os
import platform
import sys
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from .alerts.actions import Dispatcher
from .errors import AttachError, StoreError
from .layers import Layer
from .observing import Observer, load_hook, load_tap
from .recorder import Recorder, utc_now
from .sampling import Sampler
from .snapshot import take
from .steps import StepClock


_log = logging.getLogger("spikewatch")
_open: "weakref.WeakSet[Watch]" = weakref.WeakSet()
_ON_ERROR = ("warn", "raise")


def open_watches() -> list["Watch"]:
    """The watches of this process that are not closed."""
    return list(_open)


class Watch:
    """One watched model. Made by `spikewatch.attach()`.

    Attributes:
        run: Name of the run.
        dir: The runs folder.
        step: Number of the current step, from 0.
        active: Whether the current step is observed; every hook asks this first.
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
        self.step = 0
        self.active = False
        self._model = weakref.ref(model)
        self._observers = list(observers)
        self._taps: dict[str, Any] = {}
        self._recorder = recorder
        self._dispatcher = dispatcher
        self._sampler = sampler
        self._train_active = False  # what `active` is once an evaluation in between has ended
        self._root_phase: str | None = None  # while the root's forward runs
        self._eval_pending = False
        self._spent_s = 0.0
        self._told: set[tuple[str, str]] = set()
        self._root_hooks: list[Any] = []
        self._clock: StepClock | None = None
        self._closed = False
        self._pid = os.getpid()
        self._on_error = os.environ.get("SPIKEWATCH_ON_ERROR", "warn")
        if self._on_error not in _ON_ERROR:
            raise AttachError(
                f"SPIKEWATCH_ON_ERROR is {self._on_error!r}; it may be {' or '.join(_ON_ERROR)}."
            )

    # ---------------------------------------------------------------- the user's side

    @property
    def layers(self) -> list[Layer]:
        """What is watched, in the model's order."""
        return [o.layer for o in (*self._observers, *self._taps.values())]

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
        self._raise_if_asked()
        fresh = self._clock is not None and self._clock.fresh
        step = self.step if fresh or self.step == 0 else self.step - 1
        phase = "train" if torch.is_grad_enabled() else "eval"
        for name, value in scalars.items():
            try:
                number = float(value)
            except (TypeError, ValueError, RuntimeError) as error:
                self.fault(name, error)
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
        self._clock.stop()
        self._clock = None
        self.active = False
        self._recorder.event("detached", "hooks taken off the model", step=self.step)

    def close(self) -> None:
        """Flush what is pending, end the run, and feed DuckDB if nobody else does."""
        self._close("closed", "the run ended")

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
            self._close("exception", f"{type(error).__name__}: {error}")

    # ---------------------------------------------------------------- life

    def watches(self, model: nn.Module) -> bool:
        """Whether `model` is the one that is watched."""
        return self._model() is model and self._clock is not None

    def start(self, every: int | str) -> None:
        """Put the hooks on and start writing. Called once, by `attach()`."""
        model = self._model()
        assert model is not None  # noqa: S101 - `attach()` holds it
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
        for depth, observer in enumerate(self._observers):
            if observer.layer.kind != "candidate":
                self._record_layer(observer.layer, depth)
        self._recorder.event("attached", f"{len(self._observers)} layers", step=0)
        self._clock = StepClock(model, self._end_step, self._see_nothing)
        hook = load_hook()
        self._root_hooks = [
            model.register_forward_pre_hook(hook(self._before_root)),
            model.register_forward_hook(hook(self._after_root), always_call=True),
        ]
        for observer in self._observers:
            observer.start(self)
        self.active = self._train_active = self._sampler.observe(0)
        _open.add(self)
        _end_with_process(self)

    def _close(self, kind: str, message: str) -> None:
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        _open.discard(self)
        self.detach()
        self._recorder.event(kind, message, step=self.step)
        self._recorder.close()
        self._feed_store()

    def _feed_store(self) -> None:
        from .store import open_store

        # Who does not get DuckDB's lock leaves the feeding to the one who has it.
        with contextlib.suppress(StoreError, OSError), open_store(self.dir):
            pass

    # ---------------------------------------------------------------- steps

    def _before_root(self, module: nn.Module, *_: Any) -> None:
        if self._clock is None:
            return
        try:
            self._clock.before_forward()
            training = module.training and torch.is_grad_enabled()
            self._root_phase = "train" if training else "eval"
            if training:
                if self._eval_pending:
                    self._flush("eval")
                self.active = self._train_active
            elif self._clock.fresh or self.step > 0:
                self.active = self._train_active or self._sampler.observe(self.step)
            self._clock.fresh = True
        except Exception as error:  # noqa: BLE001 - contract 1
            self.fault("", error)

    def _after_root(self, *_: Any) -> None:
        self._root_phase = None

    def _end_step(self) -> None:
        try:
            began = time.perf_counter()
            if self._train_active or self._eval_pending:
                self._flush("train")
                if self._eval_pending:
                    self._flush("eval")
            self.step += 1
            self._sampler.spent(
                self._spent_s + time.perf_counter() - began + self._recorder.take_cpu_s()
            )
            self._spent_s = 0.0
            self.active = self._train_active = self._sampler.observe(self.step)
        except Exception as error:  # noqa: BLE001 - contract 1
            self.fault("", error)
        self._raise_if_asked()

    def _see_nothing(self) -> None:
        message = (
            "the optimizer steps, but no forward pass of the model is seen. Hooks are not called "
            "inside torch.compile, nor by model.forward(x). To see inside, run some steps without "
            "compile, and call model(x)"
        )
        if ("", message) not in self._told:
            self.note("", message)
            _log.warning("spikewatch: %s.", message)

    def _flush(self, phase: str) -> None:
        counts = [
            (observer.layer.name, counted)
            for observer in (*self._observers, *self._taps.values())
            if (counted := observer.flush(phase)) is not None
        ]
        if phase == "eval":
            self._eval_pending = False
        if counts:
            self._recorder.submit(
                take(
                    counts,
                    run=self.run,
                    rank=self._recorder.rank,
                    phase=phase,
                    step=self.step,
                    at=utc_now(),
                )
            )

    def _raise_if_asked(self) -> None:
        error = self._dispatcher.pending_error
        if error is not None:
            self._dispatcher.pending_error = None
            raise error

    # ---------------------------------------------------------------- the observers' side

    def touch(self) -> None:
        """See `Session.touch`."""
        if self._clock is not None:
            self._clock.fresh = True

    def phase(self) -> str:
        """See `Session.phase`."""
        phase = self._root_phase or ("train" if torch.is_grad_enabled() else "eval")
        if phase == "eval":
            self._eval_pending = True
        return phase

    def spent(self, seconds: float) -> None:
        """See `Session.spent`."""
        self._spent_s += seconds

    def fault(self, layer: str, error: Exception) -> None:
        """See `Session.fault`."""
        if self._on_error == "raise":
            raise error
        message = f"{type(error).__name__}: {error}"
        if (layer, message) in self._told:
            return
        self._told.add((layer, message))
        self._recorder.event("fault", message, step=self.step, layer=layer)
        _log.warning(
            "spikewatch could not observe %s at step %d (%s). Training is not affected.",
            repr(layer) if layer else "the model",
            self.step,
            message,
        )

    def note(self, layer: str, message: str) -> None:
        """See `Session.note`."""
        if (layer, message) not in self._told:
            self._told.add((layer, message))
            self._recorder.event("note", message, step=self.step, layer=layer)

    def confirm(self, layer: Layer) -> None:
        """See `Session.confirm`."""
        names = [o.layer.name for o in self._observers]
        self._record_layer(layer, names.index(layer.name))

    def observe_tap(self, name: str, tensor: Tensor) -> None:
        """Watch a tensor that the user taps; see `spikewatch.tap`."""
        if self._clock is None:
            return
        tapped = self._taps.get(name)
        if tapped is None:
            tapped = self._taps[name] = load_tap()(name)
            tapped.start(self)
            self._record_layer(tapped.layer, len(self._observers) + len(self._taps) - 1)
        tapped.observe_tensor(tensor)

    def _record_layer(self, layer: Layer, depth: int) -> None:
        self._recorder.record(
            "layers",
            layer=layer.name,
            kind=layer.kind,
            library=layer.library,
            type=layer.type,
            depth=depth,
            note=layer.note,
        )


def _version() -> str:
    from importlib.metadata import version

    return version("spikewatch")


def _end_with_process(watch: Watch) -> None:
    """Flush when the process ends, and note the exception that ends it."""
    alive = weakref.ref(watch)
    report_crash = sys.excepthook

    def on_crash(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if (watch := alive()) is not None:
            watch.__exit__(kind, error, trace)
        report_crash(kind, error, trace)

    def on_exit() -> None:
        if (watch := alive()) is not None:
            watch.close()

    sys.excepthook = on_crash
    atexit.register(on_exit)
