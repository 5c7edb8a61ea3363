"""Lightning: `Trainer(callbacks=[SpikewatchCallback(run="first")])`. Or `pytorch_lightning`."""

import sys
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from spikewatch import AttachError

from .watching import ASK_EVERY, Watching, not_installed


if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    # Both packages are the same code, and a trainer of one takes callbacks of the other: the one
    # that the user has imported comes first, as an import takes seconds.
    _names = ("lightning.pytorch", "pytorch_lightning")
    for _name in sorted(_names, key=lambda name: name not in sys.modules):
        try:
            Callback = import_module(_name).Callback
            break
        except ModuleNotFoundError as error:
            _error = not_installed(_name.split(".")[0], "lightning", error)
    else:
        raise _error from None


class SpikewatchCallback(Callback):
    """Watches the `LightningModule` while `Trainer.fit` runs.

    The watch begins when the training does, after the sanity check, whose batches are no figures of
    it. It ends with the training, or with the exception that ends it. What `self.log` was given is
    stored once for each optimizer step (for validation, in phase `eval`), with the learning rate
    and, where no figure has `loss` in its name, the loss that `training_step` returned.
    Figures of an epoch stand where its validation does, at the step after it.

    A rule with the action `stop` sets `trainer.should_stop`, so `min_steps` and `min_epochs` hold.
    On several ranks an alert may fire on one, and the others would wait for it for ever. So, if
    there is such a rule, all ranks ask each other by the trainer's own
    `strategy.reduce_boolean_decision`, after every `ask_every` batches. An exception (action
    `raise`) ends the rank that it is raised on, and the launcher ends the others.

    Nothing of ours is in the trainer's checkpoints. A training that goes on from one is a run of
    its own, whose steps count from `trainer.global_step`.

    Args:
        checkpoint_to: A folder into which the trainer saves a checkpoint before a non-finite step
            is applied, and for rules with the action `checkpoint`: what `on_checkpoint` is for, by
            `Trainer.save_checkpoint`. For one process only, as that waits for all ranks.
        ask_every: Batches between two such questions, where several ranks train.
        options: Those of `spikewatch.attach`.

    Raises:
        AttachError: An option is unknown, or `checkpoint_to` and `on_checkpoint` are both given.

    Attributes:
        watch: The `Watch` of the training that goes on, else None.
    """

    def __init__(
        self,
        *,
        checkpoint_to: str | Path | None = None,
        ask_every: int = ASK_EVERY,
        **options: Any,
    ) -> None:
        super().__init__()
        if checkpoint_to is not None and "on_checkpoint" in options:
            raise AttachError("`checkpoint_to` and `on_checkpoint` were both given. Give one.")
        self._watching = Watching(options, ask_every=ask_every)
        self._checkpoint_to = checkpoint_to
        self._seen: dict[str, Tensor] = {}
        self._logged_at = 0
        self._rate: Any = None

    @property
    def watch(self) -> Any:
        return self._watching.watch

    def on_train_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        # Not at `on_fit_start`: by then the steps of the checkpoint are not known, and the forward
        # passes of the sanity check would be the first that are seen.
        more: dict[str, Any] = {"first_step": trainer.global_step}
        if self._checkpoint_to is not None:
            more["on_checkpoint"] = self._saver(trainer)
        self._new(trainer)
        self._logged_at = self._watching.begin(pl_module, n_ranks=trainer.world_size, **more).step

    def on_before_optimizer_step(
        self, trainer: "Trainer", pl_module: "LightningModule", optimizer: Optimizer
    ) -> None:
        self._rate = optimizer.param_groups[0].get("lr")  # a scheduler changes it before the end

    def on_train_batch_end(
        self,
        trainer: "Trainer",
        pl_module: "LightningModule",
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        watch = self.watch
        if watch is not None and watch.step != self._logged_at:  # gradients accumulate no more
            self._logged_at = watch.step
            figures = self._new(trainer) | {"lr": self._rate}
            if not any("loss" in name for name in figures) and isinstance(outputs, Mapping):
                loss = outputs.get("loss")  # by then divided for the accumulation of gradients
                if isinstance(loss, Tensor):
                    figures["loss"] = loss.detach() * trainer.accumulate_grad_batches
            self._watching.log(figures)
        ranks = None
        if trainer.world_size > 1:
            ranks = partial(trainer.strategy.reduce_boolean_decision, all=False)
        if self._watching.is_to_stop(ranks):
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        self._watching.log(self._new(trainer))  # of the epoch before: known by now, on all ranks

    def on_validation_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        self._new(trainer)

    def on_validation_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        self._watching.log(self._new(trainer), phase="eval")

    def on_train_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        self._watching.log(self._new(trainer))
        self._watching.end()

    def on_exception(
        self, trainer: "Trainer", pl_module: "LightningModule", exception: BaseException
    ) -> None:
        self._watching.end(exception)

    def _new(self, trainer: "Trainer") -> dict[str, Tensor]:
        """What the trainer has logged since the last call: what is logged has memory of its own."""
        now = {n: x for n, x in trainer.logged_metrics.items() if isinstance(x, Tensor)}
        new = {n: x for n, x in now.items() if n not in self._seen or not _same(x, self._seen[n])}
        self._seen = now
        return new

    def _saver(self, trainer: "Trainer") -> Any:
        if trainer.world_size > 1:
            raise AttachError(
                "`checkpoint_to` is for one process: `Trainer.save_checkpoint` waits for all "
                "ranks, and an alert may fire on one. Pass `on_checkpoint=`, a function that saves "
                "what its rank has."
            )
        folder = Path(self._checkpoint_to or "")

        def save(alert: dict[str, Any]) -> None:
            name = f"{alert['run']}-step-{alert['step']}-{alert['rule']}.ckpt"
            trainer.save_checkpoint(folder / name)

        return save


def _same(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr()
