"""Watch: the life of one attached model. start → step → flush → close."""

import contextlib
import os
import platform
import sys
import weakref
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from . import process
from .alerts.actions import Dispatcher
from .alerts.channels import without_addresses
from .alerts.guard import StepGuard
from .errors import StoreError
from .finding import Finder
from .layers import Layer
from .observing import Observer
from .recorder import Recorder
from .sampling import Sampler
from .scalars import record_scalars
from .stepping import Stepping


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
        finder: Finder,
        recorder: Recorder,
        dispatcher: Dispatcher,
        sampler: Sampler,
        *,
        run: str,
        folder: Path,
        track_weights: int,
        optimizers: Sequence[Optimizer] = (),
        first_step: int = 0,
    ) -> None:
        self.run = run
        self.dir = folder
        self._model = weakref.ref(model)
        self._recorder = recorder
        self._dispatcher = dispatcher
        self._stepping = Stepping(
            model,
            observers,
            finder,
            recorder,
            sampler,
            run=run,
            track_weights=track_weights,
            optimizers=optimizers,
            first_step=first_step,
            after_step=dispatcher.act,
        )
        self._session = self._stepping.session
        self._closed = False
        self._guard: StepGuard | None = None

    # ---------------------------------------------------------------- the user's side

    @property
    def step(self) -> int:
        """Number of the current step, from 0 or `attach(first_step=…)`."""
        return self._session.step

    @property
    def layers(self) -> list[Layer]:
        """What is watched, in the model's order."""
        return self._stepping.layers

    @property
    def should_stop(self) -> bool:
        """Whether an alert fired whose rule asks for training to stop."""
        return self._dispatcher.should_stop

    @property
    def may_stop(self) -> bool:
        """Whether there is a rule that asks for training to stop when it fires."""
        return self._dispatcher.may_stop

    def log(self, /, **scalars: float | Tensor) -> None:
        """Store scalars of the current step: `watch.log(loss=loss, accuracy=0.9)`.

        Called after `optimizer.step()` they belong to the step that just ended. Rules look at
        names with `loss` in them, and at `accuracy_gap`: accuracy of the teacher less that of the
        student, as a fraction.

        Args:
            scalars: Numbers, or tensors with one element; for those of a GPU nobody waits.
        """
        if self._recorder.muted:
            return
        self._dispatcher.act()
        if self._closed:
            late = RuntimeError(f"log() was called after run {self.run!r} was closed")
            self._session.fault("", late)
            return
        within = self._stepping.fresh or self.step == self._stepping.first_step
        step = self.step if within else self.step - 1
        phase = "train" if torch.is_grad_enabled() else "eval"
        record_scalars(scalars, self._recorder, self._session, phase=phase, step=step)

    def detach(self) -> None:
        """Take every hook off the model; what was observed stays, `log` still works."""
        if not self._stepping.running:
            return
        self._stepping.stop()
        self._unguard()
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
        self._stepping.stop_clock()

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
        """Whether a forward pass of the model runs now; or has run, in a step not observed."""
        return self._stepping.in_forward

    def watches(self, model: nn.Module) -> bool:
        """Whether `model` is the one that is watched."""
        return self._model() is model and self._stepping.running

    def overlaps(self, model: nn.Module) -> bool:
        """Whether `model` is watched, or a part of it, or a wrapper around it."""
        watched = self._model() if self._stepping.running else None
        return watched is not None and (watched in model.modules() or model in watched.modules())

    def start(self, every: int | str) -> None:
        """Put the hooks on and start writing. Called once, by `attach()`."""
        model = self._model()
        assert model is not None  # noqa: S101 - `attach()` holds it
        self._recorder.start()
        self._recorder.record(
            "runs",
            host=platform.node(),
            pid=os.getpid(),
            script=without_addresses(" ".join(sys.argv))[:1000],
            every=str(every),
            torch_version=str(torch.__version__),
            spikewatch_version=version("spikewatch"),
        )
        self._recorder.event("attached", f"{len(self.layers)} layers", step=self.step)
        self._stepping.start(model)
        weakref.finalize(model, self._model_is_gone).atexit = False
        process.remember(self)

    def guard_steps(self) -> None:
        """Call for a checkpoint before a non-finite step; by `attach(on_checkpoint=…)`."""
        model = self._model()
        assert model is not None  # noqa: S101 - `attach()` holds it
        keys = {"run": self.run, "rank": self._recorder.rank}
        self._guard = StepGuard(
            model, step=lambda: self.step, checkpoint=self._dispatcher.checkpoint, **keys
        )

    def _unguard(self) -> None:
        if self._guard is not None:
            self._guard.close()
            self._guard = None

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
        self._unguard()
        self._stepping.end_without_model()
        self._recorder.event("closed", "the model was freed", step=self.step)
        self._recorder.on_end = partial(process.forget, self)  # or the process may end too early
        self._recorder.close(timeout_s=0)

    def observe_tap(self, name: str, tensor: Tensor) -> None:
        """Watch a tensor that the user taps; see `spikewatch.tap`."""
        self._stepping.observe_tap(name, tensor)
