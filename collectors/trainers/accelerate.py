"""Accelerate: `with attach(accelerator, model, run="first") as training:` around the loop."""

from types import TracebackType
from typing import Any

import torch
from torch import nn

from .watching import Block, Watching, not_installed


try:
    from accelerate import Accelerator
    from accelerate.tracking import GeneralTracker
except ModuleNotFoundError as error:
    raise not_installed("accelerate", "accelerate", error) from None


def attach(accelerator: Accelerator, model: nn.Module, **options: Any) -> "Training":
    """Watch a model that an `Accelerator` trains; on every rank, after `accelerator.prepare`.

        with attach(accelerator, model, run="first") as training:
            for batch in loader:
                ...
                accelerator.log({"loss": loss})
                if training.should_stop():
                    break

    What `accelerator.log` is given is stored as well, of the main process only, as for all
    trackers. Called under `torch.no_grad()`, it is stored in phase `eval`.

    Args:
        accelerator: That trains.
        model: What `prepare` returned, or what it was given.
        options: Those of `spikewatch.attach`.

    Returns:
        The training: a context that ends with it, or with the exception that ends it. Without
        `with` it ends by `accelerator.end_training()`, or as the process does.

    Raises:
        AttachError: An option is unknown, or as `spikewatch.attach` does.
        StoreError: As `spikewatch.attach` does.
        RuleError: As `spikewatch.attach` does.
    """
    return Training(accelerator, model, options)


class Training(Block, GeneralTracker):
    """A watched training of an `Accelerator`, and the tracker by which it hears `accelerator.log`.

    Attributes:
        watch: Its `Watch`; None when it has ended.
    """

    name = "spikewatch"
    requires_logging_directory = False
    main_process_only = False

    def __init__(self, accelerator: Accelerator, model: nn.Module, options: dict[str, Any]) -> None:
        super().__init__()
        self._accelerator = accelerator
        self._watching = Watching(options)
        inner = accelerator.unwrap_model(model)
        self._watching.begin(inner, n_ranks=accelerator.num_processes)
        accelerator.trackers.append(self)

    @property
    def watch(self) -> Any:
        return self._watching.watch

    @property
    def tracker(self) -> Any:
        """What `accelerator.get_tracker("spikewatch", unwrap=True)` returns: the `Watch`."""
        return self.watch

    def should_stop(self) -> bool:
        """Whether a rule with the action `stop` fired, on any rank: all get the same answer.

        Under several ranks this is `accelerator.set_trigger()` and `check_trigger()`, which waits
        for all of them, and for the device: call it in the same steps on each, every step or every
        hundredth. Where no rule has that action, which must be the same on all ranks, and in a
        single process, nobody waits.
        """
        watch = self.watch
        if watch is None or not watch.may_stop:
            return False
        if self._accelerator.num_processes == 1:
            return watch.should_stop
        if watch.should_stop:
            self._accelerator.set_trigger()
        return self._accelerator.check_trigger()

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """For `accelerator.log`. The step is that of the watch, which counts optimizer steps."""
        self._watching.log(values, phase="train" if torch.is_grad_enabled() else "eval")

    def finish(self) -> None:
        """For `accelerator.end_training`."""
        self._watching.end()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        if self in self._accelerator.trackers:
            self._accelerator.trackers.remove(self)
