"""One look at the weight of one layer, in one forward pass: which of its products has it."""

import time
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from spikewatch.layers import Layer
from spikewatch.observing import Session
from spikewatch.unheard import unheard

from .backward import Backward
from .levels import Levels
from .operands import Operand, outputs_first
from .verdicts import Verdict, better


class Watched(Protocol):
    """The layer whose weight is looked for, as a look knows it."""

    layer: Layer
    verdict: Verdict
    backward: Backward

    @property
    def is_told(self) -> bool:
        """Whether the user's function gives the weight."""

    @property
    def is_own(self) -> bool:
        """Whether the module keeps the weight that it multiplies with itself."""

    def shape(self, module: nn.Module) -> tuple[int, ...] | None:
        """Shape of the weight; None where the module has none (now)."""

    def latent(self, module: nn.Module) -> Tensor | None:
        """The latent weight, as the layer keeps it."""

    def is_hidden(self, module: nn.Module) -> bool:
        """Whether only operations below Python see the quantized weight."""

    def owner_in(self, module: nn.Module) -> nn.Module:
        """The module that keeps the weight, in the one that runs now."""

    def outputs_first(self, weight: Tensor) -> Tensor:
        """A view of the layer's weight with the outputs first."""

    def ask(self, module: nn.Module) -> Tensor | None:
        """The quantized weight, as it is told."""

    def take(
        self, look: "Look", weight: Tensor, levels: Levels, *, call: int, judged: bool
    ) -> None:
        """Take the weight that a forward pass has multiplied with."""

    def not_seen(self, session: Session) -> None:
        """Take note of a forward pass without it."""


class Look:
    """Takes the operands that fit, and hands the likeliest of them to the layer's observer."""

    def __init__(
        self,
        observer: Watched,
        session: Session,
        module: nn.Module,
        args: tuple[Any, ...],
        phase: str,
        *,
        due: bool,
        counted: bool = False,
    ) -> None:
        self.session = session
        self.module = module
        self.phase = phase
        self.input = _identity(args)
        self.latent = observer.latent(module)
        self.shape = observer.shape(module) or ()
        self.is_hidden = observer.is_hidden(module)
        self.is_own = observer.is_own
        self.is_fixed = self.latent is not None and not self.latent.requires_grad
        self._observer = observer
        self._due = due
        self._counted = counted
        self._done = observer.is_told or counted
        self._n_calls = 0
        self._best: tuple[Tensor, Levels, int] | None = None
        self._stacked = False

    def has_levels(self, weight: Tensor, *, stacked: bool) -> bool:
        """Whether a tensor has few levels, so that it is hardly an activation."""
        levels = self._observer.verdict.judge(weight, stacked=stacked)
        return levels.form not in ("full", "empty")

    def offer(self, operand: Operand) -> None:
        """Take an operand that fits: as the layer keeps its weight, or with the outputs first."""
        weight, stacked = self._view(operand, operand.tensor), operand.is_stack
        call, self._n_calls = self._n_calls, self._n_calls + 1
        verdict = self._observer.verdict
        if self._done:
            self._await_gradient(operand, is_it=self._counted and call == verdict.call)
        if self._done or not (self._due or call == verdict.call):
            return
        began = time.perf_counter()
        with torch.no_grad():
            known = None if self._due else verdict.levels
            self._stacked = stacked
            levels = verdict.judge(weight, stacked=stacked) if known is None else known
            if levels.form == "ternary" or not self._due:
                self._done, self._best = True, None
                self._observer.take(self, weight, levels, call=call, judged=self._due)
                self._await_gradient(operand, is_it=True)
            elif self._best is None or better(levels, self._best[1]):
                self._best = (weight, levels, call)  # a later product may be the quantized one
        self.session.spent(time.perf_counter() - began)

    def _view(self, operand: Operand, tensor: Tensor) -> Tensor:
        """An operand, or its gradient, with the layer's outputs first."""
        return self._observer.outputs_first(
            outputs_first(operand._replace(tensor=tensor), self.shape)
        )

    def _await_gradient(self, operand: Operand, *, is_it: bool) -> None:
        backward = self._observer.backward
        if not is_it:
            backward.pass_by()
        elif self._observer.verdict.is_ternary and self.phase == "train":
            owner, tensor = self._observer.owner_in(self.module), operand.tensor
            # What waits on a tensor must not hold it: it would keep itself alive, with its graph.
            view = partial(self._view, operand._replace(tensor=tensor.detach()))
            backward.await_gradient(self.session, owner, tensor, view)

    @property
    def is_stacked(self) -> bool:
        """Whether the weight that was seen is a stack of matrices."""
        return self._stacked

    @property
    def has_seen(self) -> bool:
        """Whether something was seen that could be the weight."""
        return self._n_calls > 0

    def settle(self, *, another_seen: bool) -> None:
        """End the look: the forward pass is over.

        Args:
            another_seen: Whether another weight of the layer, of this shape, was seen.
        """
        if self._counted:
            return
        try:
            if self._observer.is_told:
                self.ask()
            elif not self._done and self._best is not None:
                weight, levels, call = self._best
                self._best = None
                with unheard(), torch.no_grad():
                    self._observer.take(self, weight, levels, call=call, judged=True)
            elif not self._done and not self.ask() and not another_seen:
                self._observer.not_seen(self.session)
        except Exception as error:  # noqa: BLE001 - contract 1
            self.session.fault(self._observer.layer.name, error)

    def ask(self) -> bool:
        """Ask the layer, or the user's function, for the weight; returns whether it answered."""
        began = time.perf_counter()
        try:
            with torch.no_grad():
                weight = self._observer.ask(self.module)
                if weight is None:
                    return False
                levels = self._observer.verdict.judge(weight)
                self._observer.take(self, weight, levels, call=0, judged=True)
        except Exception as error:  # noqa: BLE001 - contract 1
            self.session.fault(self._observer.layer.name, error)
        self.session.spent(time.perf_counter() - began)
        return True


def _identity(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """What tells one input from another one, without holding it."""
    x = args[0] if args else None
    if not isinstance(x, Tensor):
        return None
    return (id(x), tuple(x.shape), 0 if x.is_inference() else x._version)
