"""When a step ends: after the optimizer's step or, where there is none, at the next forward.

One forward pass may call the model T times (a loop over time), and several forward passes may make
one optimizer step (gradient accumulation), so only the optimizer tells.

Where other optimizers hold the model's latent weights, a step has not ended before they have
stepped too; or before the next forward pass begins, if they do not.

An optimizer that takes a closure runs the model within its step, changes weights and runs it again:
its step has not ended before it returns. One that is made of two passes without a closure (SAM: at
the weights, then at those that its `first_step` has moved) has stepped once when its second part
has. Both passes are samples of that step: what neurons do and the gradients that reach them are
counted over both. Quantized weights are those that the first pass has used, before they were moved;
gradients of weights are those that the update was made of.

An optimizer that steps again though no backward pass has come between makes a step of its own, in
which nothing ran. Where one came whose forward pass was not seen, that is told.

Evaluations are part of the step that comes: they end none. As long as nothing was trained, they are
all there is, and each of their samples is a step, however many forward passes it takes.

Loss scaling skips the optimizer where a gradient is not finite. A training that skips and skips
would never be looked at again, just when it is ill: many forward passes without a step end one too.
"""

import threading
import weakref
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch._C import _autograd
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from .callers import stepping_optimizers
from .optimizers import Optimizers
from .turns import Turns
from .unseen import Weights


# A step ends without the optimizer after so many times the forward passes that any step has had; of
# the first one it is not known how many that will be.
_SKIPPED_STEPS = 8
_FORWARDS_OF_FIRST_STEP = 64
# So often may weights change within a step that the optimizer has still to end, before it has ended
# any: SAM moves them once.
_CHANGES_WITHIN_STEP = 1
# How many nodes of autograd graphs this thread has made: a backward pass needs some.
_n_nodes = getattr(_autograd, "_get_sequence_nr", None) or count().__next__


class Root(Protocol):
    """The hook of the model itself."""

    n_free: int
    """So many of the next forward passes in training it only counts, by taking one off."""

    rests: bool
    """Whether it has seen the first of those, and takes the others for granted."""

    def wake(self) -> None:
        """See the next one, from any thread."""


class _Clocks:
    """All that run, behind one hook of torch's: it calls those while others may come and go.

    A model may be attached in another thread, or freed within a hook of ours, while torch goes
    through its hooks; these must not change then.
    """

    def __init__(self) -> None:
        self._clocks: tuple[StepClock, ...] = ()
        self._handle: Any = None
        self._lock = threading.RLock()  # the garbage collector may come in between

    def add(self, clock: "StepClock") -> None:
        with self._lock:
            self._clocks += (clock,)
            if self._handle is None:
                self._handle = register_optimizer_step_post_hook(self._after)

    def remove(self, clock: "StepClock") -> None:
        with self._lock:
            self._clocks = tuple(c for c in self._clocks if c is not clock)
            if not self._clocks and self._handle is not None:
                self._handle.remove()
                self._handle = None

    def see_compiled(self) -> None:
        """A compiler has taken in the step of an optimizer."""
        for clock in self._clocks:
            clock.an_optimizer_is_compiled = True

    def _after(self, optimizer: Optimizer, *_: Any) -> None:
        if torch.compiler.is_compiling():
            if torch.compiler.is_dynamo_compiling():
                torch._dynamo.comptime.comptime(_compiled)  # ty: ignore[possibly-missing-submodule]
            return
        for clock in self._clocks:
            clock.after_optimizer(optimizer)


_ALL = _Clocks()


def _compiled(_context: Any) -> None:
    """Run while the hook is compiled, with an optimizer's step that tells of itself no more."""
    _ALL.see_compiled()


class StepClock:
    """Calls `ended` when a step of `model` ends, and `blind` if no forward pass was seen in one."""

    def __init__(
        self,
        model: nn.Module,
        ended: Callable[[], None],
        blind: Callable[[], None],
        root: Root,
        *,
        others: Iterable[Optimizer] = (),
    ) -> None:
        self.turns = Turns()
        """Which of the model's optimizers end steps."""
        self.repeats = False
        """Whether the step that ends was one more of an optimizer, after no backward pass."""
        self._ended = ended
        self._blind = blind
        self._root = root
        self._n_armed = 0  # forward passes of a step that the root's hook counts by itself
        self._n_armings = self._looked_at = 0
        self._stepped: weakref.WeakSet[Optimizer] = weakref.WeakSet()  # since the last forward
        self._only: Callable[[], Optimizer | None] = lambda: None  # that one, if it is always one
        self._optimizers = Optimizers(model)
        self._others = weakref.WeakSet(others)
        self._others_stepped: weakref.WeakSet[Optimizer] = weakref.WeakSet()  # in this step
        self._awaits_others = False
        self._optimizer_tells = False  # of its steps; a compiled one does not
        self._weights = Weights(model)
        self.an_optimizer_is_compiled = False
        """Whether one has steps, of this model or another, that no hook tells of."""
        self._n_changes = 0  # of theirs, within a step that no optimizer has told of
        self._n_nodes = 0  # when the latest step ended
        self._forwards = 0
        self._forwards_of_step = 0  # of training
        self._most_forwards = 0  # of one that the optimizer ended
        self._trains = False  # whether there ever was a forward pass of training
        self._fresh = False  # by the forward passes that the root's hook does not count by itself
        _ALL.add(self)

    @property
    def are_parameters_swapped(self) -> bool:
        """Whether other tensors have taken the parameters' places for now."""
        return self._optimizers.are_swapped()

    def follow(self, model: nn.Module) -> None:
        """The model has changed."""
        self._optimizers.follow()
        self._weights.follow(model)

    def stop(self) -> None:
        """Hear of no more steps."""
        _ALL.remove(self)

    @property
    def fresh(self) -> bool:
        """Whether a forward pass ran since the last step ended."""
        return self._fresh or self.counts_only

    @property
    def counts_only(self) -> bool:
        """Whether the root's hook has counted forward passes by itself in this step."""
        return self._root.n_free < self._n_armed

    @property
    def usual_forwards(self) -> int:
        """Most forward passes in training that a step has had, from its first to the optimizer."""
        return self._most_forwards

    def take_back_forward(self) -> bool:
        """The latest forward pass in training, in a step that is observed, has raised.

        Returns:
            Whether the step had no other one.
        """
        self._forwards_of_step = max(0, self._forwards_of_step - 1)
        if alone := self._forwards_of_step == 0:
            self._fresh = False
        return alone

    @property
    def only_evaluates(self) -> bool:
        """Whether nothing was trained in this step, and maybe nothing ever will be."""
        return not (self._forwards_of_step or self._optimizers.is_one_known)

    def see_forward(self) -> None:
        """A forward pass runs."""
        if self._awaits_others:
            self._end()
        self._fresh = True

    def arm(self) -> None:
        """Nothing is to be done in the next step, if it has no more forward passes than usual."""
        if self._optimizer_tells and not (self._awaits_others or self.fresh):
            self._root.n_free = self._n_armed = self._most_forwards
            self._n_armings += 1

    def look(self) -> None:
        """Look, from another thread, whether a step has not ended since the last look.

        Where the optimizer is skipped, or the last step was not one, forward passes are to be seen.
        """
        before, self._looked_at = self._looked_at, self._n_armings
        if self._root.rests and before == self._n_armings:
            self._root.n_free = 0
            self._root.wake()

    def _disarm(self) -> None:
        """Take over what the root's hook has counted."""
        if n := self._n_armed - self._root.n_free:
            self._forwards_of_step += n
            self._fresh = True
        self._root.n_free = self._n_armed = 0
        self._root.wake()

    def goes_on(self) -> bool:
        """Whether the forward pass of training that begins is one more of the step that runs.

        A quick answer, where there is one; else False, and `before_forward` is to be asked.
        """
        n_forwards = self._forwards_of_step + 1
        if not self._fresh or not self._optimizer_tells or self._awaits_others:
            return False
        if self._n_armed or n_forwards > self._most_forwards:
            return False
        self._forwards_of_step = n_forwards
        return True

    def before_forward(self, *, training: bool) -> None:
        """The root's forward begins, which may end a step; call `see_forward` after this."""
        self._disarm()
        only_evaluated = self._forwards_of_step == 0
        self._forwards_of_step += training
        if training and not self._trains:  # evaluations came before: an optimizer is new, maybe
            self._trains = True
            self._optimizers.look_again()
        if self._awaits_others:
            self._end()
        elif not self._fresh:
            self._weights.changed()
        else:
            self._forwards += 1
            if not only_evaluated and not self._is_within_step(training=training):
                # There is no optimizer, or one that does not tell, or one that is skipped.
                self._forwards_of_step = int(training)
                self._end()

    def end_evaluation(self) -> None:
        """End a step that has evaluated a sample, unless something trains or is about to."""
        if self.only_evaluates and not self._optimizers.are_there(self._forwards):
            self._end()

    def _is_within_step(self, *, training: bool) -> bool:
        """Whether a step goes on, which the optimizer is going to end."""
        if not self._optimizers.are_there(self._forwards):
            return False
        told = self._optimizer_tells or not self._was_changed_untold()
        if told and not (training and self._is_skipped()):
            return True
        return any(map(self._optimizers.include, stepping_optimizers()))

    def _was_changed_untold(self) -> bool:
        """Whether the weights tell of a step that an optimizer does not tell of."""
        if not self._weights.changed():
            return False
        self._n_changes += 1
        return self.an_optimizer_is_compiled or self._n_changes > _CHANGES_WITHIN_STEP

    def _is_skipped(self) -> bool:
        usual = self._most_forwards or _FORWARDS_OF_FIRST_STEP
        return self._forwards_of_step > _SKIPPED_STEPS * usual

    def _end(self) -> None:
        self._fresh = self._awaits_others = self.repeats = False
        self._n_nodes = _n_nodes()
        self._others_stepped.clear()
        self._ended()

    def after_optimizer(self, optimizer: Optimizer) -> None:
        """An optimizer has stepped, any."""
        if self._only() is optimizer and self.fresh:  # in short: a step like the one before
            self._disarm()
            self._count_forwards()
            self._fresh = self.repeats = False
            self._n_nodes = _n_nodes()
            self._ended()
            return
        if optimizer in self._others:
            self._others_stepped.add(optimizer)
            if self._awaits_others and self._others_have_stepped:
                self._end()
        if self._optimizers.include(optimizer):
            self._after_own(optimizer)

    def _after_own(self, optimizer: Optimizer) -> None:
        """One of the model's optimizers has stepped."""
        self._disarm()
        self._optimizers.is_one_known = self._optimizer_tells = True
        self._count_forwards()
        self._only = lambda: None
        if self._fresh:
            self._stepped.clear()
            self.turns.take(optimizer)
            if not self._others:
                self._only = weakref.ref(optimizer)
            if self._others_have_stepped:
                self._end()
            else:
                self._awaits_others = True
        elif optimizer in self._stepped:
            self._stepped.clear()
            self._step_without_forward()
        else:
            # Another optimizer of the same model (a GAN, scales apart) ends no second step.
            self.turns.follow(optimizer)
            self._n_nodes = _n_nodes()
        self._stepped.add(optimizer)

    def _step_without_forward(self) -> None:
        """Once more the same optimizer, and no forward pass was seen."""
        before, self._n_nodes = self._n_nodes, _n_nodes()
        self.repeats = before == self._n_nodes
        if not self.repeats:  # it ran where no hook is called: compiled, or by `.forward()`
            self._blind()
        self._ended()

    def _count_forwards(self) -> None:
        self._most_forwards = max(self._most_forwards, self._forwards_of_step)
        self._forwards_of_step = 0

    @property
    def _others_have_stepped(self) -> bool:
        return len(self._others_stepped) == len(self._others)

    def optimizes(self, parameter: Tensor) -> bool:
        """Whether one of the model's optimizers, of which steps are observed, holds a parameter."""
        return self._optimizers.hold(parameter, but=self.turns.missing)

    def names_of(self, optimizer: Optimizer) -> list[str]:
        """Names of the model's parameters that an optimizer holds."""
        return self._optimizers.names_of(optimizer)
