"""Ignite: `SpikewatchHandler(model, run="first").attach(trainer, {"val": evaluator})`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .watching import ASK_EVERY, Watching, not_installed


try:
    import ignite.distributed as idist
    from ignite.engine import Engine, Events
except ModuleNotFoundError as error:
    raise not_installed("ignite", "pytorch-ignite", error) from None


class SpikewatchHandler:
    """Watches a model while an `Engine` trains it.

    The watch begins with `Events.STARTED` and ends with `Events.COMPLETED`, or with the exception
    that ends the run. Stored are, after each iteration, what the update function returned: a number
    as `loss`, or those in a dict by their names; after each epoch the trainer's metrics; and the
    metrics of evaluators, in phase `eval`, with their name before them: `val_accuracy`.

    A rule with the action `stop` calls `engine.terminate()`. On several ranks an alert may fire on
    one, and the others would wait for it for ever. So, if there is such a rule, all ranks ask each
    other by `ignite.distributed.all_reduce`, after every `ask_every` iterations. An exception
    (action `raise`) ends the rank that it is raised on, and the launcher ends the others.

    Nothing of ours is in `engine.state_dict()`. A training that goes on from one is a run of its
    own, whose steps count from `engine.state.iteration`: optimizer steps, where each iteration
    makes one.

    Args:
        model: What is trained; wrapped or not.
        ask_every: Iterations between two such questions, where several ranks train.
        options: Those of `spikewatch.attach`.

    Raises:
        AttachError: An option is unknown.

    Attributes:
        watch: The `Watch` of the training that goes on, else None.
    """

    def __init__(self, model: nn.Module, *, ask_every: int = ASK_EVERY, **options: Any) -> None:
        self._model = model
        self._watching = Watching(options, ask_every=ask_every)

    @property
    def watch(self) -> Any:
        return self._watching.watch

    def attach(self, trainer: Engine, evaluators: Mapping[str, Engine] | None = None) -> None:
        """Hear a trainer's events, and those of engines that evaluate.

        Args:
            trainer: The engine whose update function trains the model.
            evaluators: By the name that stands before their metrics.
        """
        trainer.add_event_handler(Events.STARTED, self._begin)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._after_iteration)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
        trainer.add_event_handler(Events.COMPLETED, lambda: self._watching.end())
        trainer.add_event_handler(Events.EXCEPTION_RAISED, self._fail)
        for name, evaluator in (evaluators or {}).items():
            evaluator.add_event_handler(Events.COMPLETED, self._after_evaluation, name)

    def _begin(self, trainer: Engine) -> None:
        step = trainer.state.iteration
        self._watching.begin(self._model, n_ranks=idist.get_world_size(), first_step=step)

    def _after_iteration(self, trainer: Engine) -> None:
        output = trainer.state.output
        self._watching.log(output if isinstance(output, Mapping) else {"loss": output})
        ranks = _any_rank if idist.get_world_size() > 1 else None
        if self._watching.is_to_stop(ranks):
            trainer.terminate()

    def _after_epoch(self, trainer: Engine) -> None:
        self._watching.log(trainer.state.metrics)

    def _after_evaluation(self, evaluator: Engine, name: str) -> None:
        metrics = {f"{name}_{metric}": x for metric, x in evaluator.state.metrics.items()}
        self._watching.log(metrics, phase="eval")

    def _fail(self, trainer: Engine, error: BaseException) -> None:
        self._watching.end(error)
        # An engine raises what nobody handles. That we hear of it must not make it silent.
        if len(trainer._event_handlers[Events.EXCEPTION_RAISED]) == 1:
            raise error


def _any_rank(is_to_stop: bool) -> bool:
    told = idist.all_reduce(int(is_to_stop), "MAX")
    return bool(told.item() if isinstance(told, Tensor) else told)
