"""The observers' side of a watch: is this step observed, which phase is it, what went wrong."""

import logging
import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .errors import AttachError
from .layers import Layer
from .recorder import Recorder
from .root_pass import RootPass
from .samples import Samples


_log = logging.getLogger("spikewatch")
_ON_ERROR = ("warn", "raise")


class LiveSession:
    """What every hook of one watch shares. See `spikewatch.observing.Session`.

    Attributes:
        active: Whether the current step is observed; every hook asks this first.
        detailed: Whether the dear readings are due in it.
        n_forwards: Number of the root's forward pass, from 1.
        step: Number of the current step.
        root_phase: `train` or `eval` while a forward pass of the root runs, else None.
        root_pass: That forward pass, where steps end within it.
        eval_pending: Whether something was counted in phase `eval` since its last flush.
        spent_s: Time spent in hooks since the step began.
        loss_scale: What the loss of the step that ends was multiplied by; None: by nothing.
        misses_turns: Whether an optimizer takes turns with others, and no step of it was observed.
        track_weights: Of a layer with more weights than these, so many are followed one by one.
    """

    def __init__(self, recorder: Recorder, *, track_weights: int) -> None:
        self.track_weights = track_weights
        self.active = False
        self.detailed = True
        self.n_forwards = 0
        self.step = 0
        self.root_phase: str | None = None
        self.root_pass = RootPass()
        self.eval_pending = False
        self.spent_s = 0.0
        self.loss_scale: torch.Tensor | float | None = None
        self.misses_turns = False
        self.on_touch: Callable[[], None] | None = None
        self.on_sample: Callable[[str], None] | None = None
        self.on_optimizes: Callable[[Tensor], bool] | None = None
        self._samples = Samples()
        self._recorder = recorder
        self._depths: dict[str, int] = {}
        self._told: set[tuple[str, str]] = set()
        self._on_error = os.environ.get("SPIKEWATCH_ON_ERROR", "warn")
        if self._on_error not in _ON_ERROR:
            raise AttachError(
                f"SPIKEWATCH_ON_ERROR is {self._on_error!r}; it may be {' or '.join(_ON_ERROR)}."
            )

    def touch(self) -> None:
        """Say that a forward pass runs (some roots are never called as modules)."""
        if self.on_touch is not None:
            self.on_touch()

    def begins_sample(self, layer: str, starts: bool | str | None) -> bool | None:
        """Whether a call of a layer is the first time step of a sample, by what it says."""
        begins = self._samples.begins(layer, starts, n_forwards=self.n_forwards)
        if begins and self.on_sample is not None and self.root_phase == "eval":
            self.on_sample(layer)
        return begins

    def phase(self) -> str:
        """`train` or `eval`: as the root's forward began, or by the grad mode outside of it."""
        phase = self.root_phase or ("train" if torch.is_grad_enabled() else "eval")
        if phase == "eval":
            self.eval_pending = True
        return phase

    def optimizes(self, parameter: Tensor) -> bool:
        """Whether an optimizer of the model holds a parameter."""
        return self.on_optimizes is not None and self.on_optimizes(parameter)

    def spent(self, seconds: float) -> None:
        """Add to the cost of the step."""
        self.spent_s += seconds

    def fault(self, layer: str, error: Exception) -> None:
        """Store and tell a failure once; raise it only under `SPIKEWATCH_ON_ERROR=raise`."""
        if self._on_error == "raise":
            raise error
        message = f"{type(error).__name__}: {error}"
        if self._first(layer, message):
            self._recorder.event("fault", message, step=self.step, layer=layer)
            _log.warning(
                "spikewatch could not observe %s at step %d (%s). Training is not affected.",
                repr(layer) if layer else "the model",
                self.step,
                message,
            )

    def note(self, layer: str, message: str, *, aloud: bool = False) -> None:
        """Store, once, what the user should know; `aloud`: warn of it, once for all layers."""
        if self._first(layer, message):
            self._recorder.event("note", message, step=self.step, layer=layer)
            if aloud and (not layer or self._first("", message)):
                _log.warning("spikewatch: %s%s.", f"{layer!r}: " if layer else "", message)

    def confirm(self, layer: Layer) -> None:
        """Store a layer, at its place in the model."""
        depth = self._depths.setdefault(layer.name, len(self._depths))
        self._recorder.record(
            "layers",
            layer=layer.name,
            kind=layer.kind,
            library=layer.library,
            type=layer.type,
            depth=depth,
            note=layer.note,
        )

    def place(self, layers: Sequence[Layer]) -> list[Layer]:
        """Give layers their depths, in their order; returns those that had another one before.

        Whatever else has a depth, such as a site of one of them, comes after them.
        """
        before, self._depths = self._depths, {}
        for layer in layers:
            self._depths.setdefault(layer.name, len(self._depths))
        for name in before:
            self._depths.setdefault(name, len(self._depths))
        return [x for x in layers if before.get(x.name, -1) not in (-1, self._depths[x.name])]

    def end(self, name: str, message: str) -> None:
        """A layer is in the model no more, or another one has its name."""
        self._recorder.event("removed", message, step=self.step, layer=name)
        for told in list(self._told):  # the writer's thread may tell of something just now
            if told[0] == name:
                self._told.discard(told)
        self._samples.forget(name)
        self._depths.pop(name, None)

    def _first(self, layer: str, message: str) -> bool:
        new = (layer, message) not in self._told
        self._told.add((layer, message))
        return new
