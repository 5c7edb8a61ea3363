"""What all trainers have in common: a watch that begins and ends with a training, and its flag.

The file of a trainer says at which of its events these are called, and how it stops.
"""

import inspect
import logging
import weakref
from collections.abc import Callable, Mapping
from numbers import Real
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

import spikewatch


_log = logging.getLogger("spikewatch")
# Of trainings that nobody has said the end of: where an exception was caught, and no event told.
_begun_here: weakref.WeakSet[spikewatch.Watch] = weakref.WeakSet()

ASK_EVERY = 50


class Watching:
    """The watch of one trainer, begun anew with each of its trainings.

    Args:
        options: For `spikewatch.attach`.
        ask_every: Where several ranks train, how many steps lie between two times that they ask
            each other whether one of them is to stop.

    Attributes:
        watch: Of the training that goes on, else None.

    Raises:
        AttachError: An option is none of `attach`'s, or `ask_every` is no whole number ≥ 1.
    """

    def __init__(self, options: Mapping[str, Any], *, ask_every: int = ASK_EVERY) -> None:
        known = set(inspect.signature(spikewatch.attach).parameters) - {"model"}
        unknown = ", ".join(repr(name) for name in sorted(set(options) - known))
        if unknown:
            raise spikewatch.AttachError(
                f"`spikewatch.attach` has no option {unknown}. It has: {', '.join(sorted(known))}."
            )
        if not isinstance(ask_every, int) or isinstance(ask_every, bool) or ask_every < 1:
            raise spikewatch.AttachError(
                f"`ask_every` was {ask_every!r}. Give a whole number of steps ≥ 1, such as "
                f"{ASK_EVERY}."
            )
        self.watch: spikewatch.Watch | None = None
        self._options = dict(options)
        self._ask_every = ask_every
        self._is_ours = False
        self._n_begun = 0
        self._n_until_asked = 0
        self._first_run = ""

    def begin(self, model: nn.Module, *, n_ranks: int = 1, **more: Any) -> spikewatch.Watch:
        """Attach, unless the user has; then theirs is used, and closing it is left to them.

        Args:
            model: What is trained.
            n_ranks: How many processes train it.
            more: Further options of `attach`, where the user gave none of that name.

        Raises:
            AttachError: As `attach` does.
            StoreError: As `attach` does.
            RuleError: As `attach` does.
        """
        self.end(_Untold())
        watch = spikewatch.watch_of(model)
        if watch is not None and watch in _begun_here:
            watch.close_after(_Untold())
            watch = None
        self._is_ours = watch is None
        if watch is None:
            watch = spikewatch.attach(model, **more | self._options | self._next_run(n_ranks))
            _begun_here.add(watch)
            self._n_begun += 1
            self._first_run = self._first_run or watch.run
        elif self._options or "on_checkpoint" in more:
            _log.warning(
                "spikewatch: this model is watched already, by run %r, which goes on; the options "
                "of the trainer's integration are not used.",
                watch.run,
            )
        self.watch = watch
        self._n_until_asked = 0
        return watch

    def end(self, error: BaseException | None = None) -> None:
        """Close the watch, if it is ours; with the exception that ended the training."""
        watch, self.watch = self.watch, None
        if watch is None or not self._is_ours:
            return
        _begun_here.discard(watch)
        if error is None:
            watch.close()
        else:
            watch.close_after(error)

    def log(self, figures: Mapping[str, Any], *, phase: str = "train") -> None:
        """`Watch.log` of those figures that are numbers, in phase `train` or `eval`."""
        numbers = {str(name): x for name, x in figures.items() if _is_number(x)}
        if self.watch is not None and numbers:
            # `Watch.log` tells evaluation by the grad mode, and trainers log with it on or off.
            with torch.set_grad_enabled(phase == "train"):
                self.watch.log(**numbers)

    def is_to_stop(self, any_rank: Callable[[bool], bool] | None) -> bool:
        """Whether a rule asked for the training to stop; on several ranks the same on each.

        Called after each step or batch, as often on each rank.

        Args:
            any_rank: The trainer's own way to ask all ranks, which waits for them; None where there
                is one only. It is called every `ask_every` times, and never without a rule that has
                the action `stop`. So all ranks must have the same rules.
        """
        if self.watch is None or not self.watch.may_stop:
            return False
        if any_rank is None:
            return self.watch.should_stop
        self._n_until_asked = (self._n_until_asked or self._ask_every) - 1
        return not self._n_until_asked and any_rank(self.watch.should_stop)

    def _next_run(self, n_ranks: int) -> dict[str, Any]:
        # Ranks cannot look for a free name one by one, but they count the trainings alike.
        if n_ranks == 1 or not self._n_begun:
            return {}
        return {"run": f"{self._first_run}-{self._n_begun + 1}"}


class Block:
    """A training as a context: it ends with the block, or with the exception that ends that."""

    _watching: Watching

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watching.end(error)


class _Untold(Exception):  # noqa: N818 - stands in a record, and is never raised
    def __init__(self) -> None:
        super().__init__("the training did not come to its end, and the trainer did not say why")


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, Real) and not isinstance(value, bool)


def not_installed(library: str, install: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The error for who imports an integration without its library: says what to install."""
    if (error.name or "").split(".")[0] != library:
        return error  # the library is there, and misses something itself
    return ModuleNotFoundError(
        f"The integration needs {library}, which is not installed. Install it with: "
        f"pip install {install}",
        name=error.name,
    )
