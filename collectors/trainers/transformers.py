"""Hugging Face: `Trainer(model, args, callbacks=[SpikewatchCallback(run="first")])`."""

from typing import Any

import torch
from torch import nn

from .watching import ASK_EVERY, Block, Watching, not_installed


try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError as error:
    raise not_installed("transformers", "'transformers[torch]'", error) from None


class SpikewatchCallback(Block, TrainerCallback):
    """Watches the model while `Trainer.train` runs.

    What the trainer logs is stored: of evaluations (names with `eval_`) in phase `eval`. Its `loss`
    is a mean since the last time, and `logging_nan_inf_filter`, which is on by default, hides NaN
    in it: set `TrainingArguments(logging_nan_inf_filter=False)` to have rules see that. Non-finite
    gradients, spikes and weights are seen anyway.

    A rule with the action `stop` sets `control.should_training_stop`. On several ranks an alert may
    fire on one, and the others would wait for it for ever. So, if there is such a rule, all ranks
    ask each other by `accelerate.utils.reduce`, after every `ask_every` steps. An exception (action
    `raise`) ends the rank that it is raised on, and the launcher ends the others.

    The trainer has no event for an exception. One that ends the program is recorded; to have one
    recorded that is caught (also Ctrl-C in a notebook), use the callback as a context:

        with SpikewatchCallback(run="first") as callback:
            Trainer(model, args, callbacks=[callback]).train()

    Nothing of ours is in the trainer's checkpoints. A training that goes on from one is a run of
    its own, whose steps count from `state.global_step`.

    Args:
        ask_every: Steps between two such questions, where several ranks train.
        options: Those of `spikewatch.attach`.

    Raises:
        AttachError: An option is unknown.

    Attributes:
        watch: The `Watch` of the training that goes on, else None.
    """

    def __init__(self, *, ask_every: int = ASK_EVERY, **options: Any) -> None:
        self._watching = Watching(options, ask_every=ask_every)

    @property
    def watch(self) -> Any:
        return self._watching.watch

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        assert model is not None  # noqa: S101 - the trainer passes it with every event
        step = state.global_step
        self._watching.begin(model, n_ranks=args.world_size, first_step=step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        ranks = any_rank if args.world_size > 1 else None
        if self._watching.is_to_stop(ranks):
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        figures = {name: x for name, x in (logs or {}).items() if name != "epoch"}
        evaluated = any(name.startswith("eval_") for name in figures)
        self._watching.log(figures, phase="eval" if evaluated else "train")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._watching.end()


def any_rank(is_to_stop: bool) -> bool:
    """Whether one of the ranks says so; waits for all of them."""
    from accelerate import PartialState
    from accelerate.utils import reduce

    flag = torch.tensor(int(is_to_stop), device=PartialState().device)
    return bool(reduce(flag, "sum").item())
