"""When a step ends: after the optimizer's step or, where there is none, at the next forward.

One forward pass may call the model T times (a loop over time), and several forward passes may make
one optimizer step (gradient accumulation), so only the optimizer tells. Whether there is one at all
is asked of the garbage collector, rarely: an optimizer is often made after `attach()`.

Where other optimizers hold the model's latent weights, a step has not ended before they have
stepped too; or before the next forward pass begins, if they do not.

An optimizer that takes a closure runs the model within its step, changes weights and runs it again:
its step has not ended before it returns.

Evaluations are part of the step that comes: they end none. As long as nothing was trained, they are
all there is, and each of their samples is a step, however many forward passes it takes.

Loss scaling skips the optimizer where a gradient is not finite. A training that skips and skips
would never be looked at again, just when it is ill: many forward passes without a step end one too.
"""

import gc
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from .callers import stepping_optimizers
from .unseen import Weights


# A step ends without the optimizer after so many times the forward passes that any step has had; of
# the first one it is not known how many that will be.
_SKIPPED_STEPS = 8
_FORWARDS_OF_FIRST_STEP = 64


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

    def _after(self, optimizer: Optimizer, *_: Any) -> None:
        for clock in self._clocks:
            clock.after_optimizer(optimizer)


_ALL = _Clocks()


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
        self._model = weakref.ref(model)
        self._ended = ended
        self._blind = blind
        self._root = root
        self._n_armed = 0  # forward passes of a step that the root's hook counts by itself
        self._n_armings = self._looked_at = 0
        self._stepped: weakref.WeakSet[Optimizer] = weakref.WeakSet()  # since the last forward
        self._only: Callable[[], Optimizer | None] = lambda: None  # that one, if it is always one
        self._owners: weakref.WeakKeyDictionary[Optimizer, bool] = weakref.WeakKeyDictionary()
        self._others = weakref.WeakSet(others)
        self._others_stepped: weakref.WeakSet[Optimizer] = weakref.WeakSet()  # in this step
        self._awaits_others = False
        self._optimizer_seen = False
        self._optimizer_tells = False  # of its steps; a compiled one does not
        self._weights = Weights(model)
        self._forwards = 0
        self._forwards_of_step = 0  # of training
        self._most_forwards = 0  # of one that the optimizer ended
        self._look_again_at = 1
        self._trains = False  # whether there ever was a forward pass of training
        self._fresh = False  # by the forward passes that the root's hook does not count by itself
        _ALL.add(self)

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

    @property
    def only_evaluates(self) -> bool:
        """Whether nothing was trained in this step, and maybe nothing ever will be."""
        return not (self._forwards_of_step or self._optimizer_seen)

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
            self._trains, self._look_again_at = True, 1
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
        if self.only_evaluates and not self._has_optimizer():
            self._end()

    def _is_within_step(self, *, training: bool) -> bool:
        """Whether a step goes on, which the optimizer is going to end."""
        if not self._has_optimizer():
            return False
        told = self._optimizer_tells or not self._weights.changed()
        if told and not (training and self._is_skipped()):
            return True
        return any(self._owns(optimizer) for optimizer in stepping_optimizers())

    def _is_skipped(self) -> bool:
        usual = self._most_forwards or _FORWARDS_OF_FIRST_STEP
        return self._forwards_of_step > _SKIPPED_STEPS * usual

    def _end(self) -> None:
        self._fresh = self._awaits_others = False
        self._others_stepped.clear()
        self._ended()

    def after_optimizer(self, optimizer: Optimizer) -> None:
        """An optimizer has stepped, any."""
        if torch.compiler.is_compiling():
            return
        if self._only() is optimizer and self.fresh:  # in short: a step like the one before
            self._disarm()
            self._count_forwards()
            self._fresh = False
            self._ended()
            return
        if optimizer in self._others:
            self._others_stepped.add(optimizer)
            if self._awaits_others and self._others_have_stepped:
                self._end()
        if not self._owns(optimizer):
            return
        self._disarm()
        self._optimizer_seen = self._optimizer_tells = True
        self._count_forwards()
        self._only = lambda: None
        if self._fresh:
            self._stepped.clear()
            if not self._others:
                self._only = weakref.ref(optimizer)
            if self._others_have_stepped:
                self._end()
            else:
                self._awaits_others = True
        elif optimizer in self._stepped:
            # The forward pass runs where no hook is called: compiled, or by `.forward()`.
            self._blind()
            self._ended()
        # Another optimizer of the same model (a GAN, scales apart) ends no second step.
        self._stepped.add(optimizer)

    def _count_forwards(self) -> None:
        self._most_forwards = max(self._most_forwards, self._forwards_of_step)
        self._forwards_of_step = 0

    @property
    def _others_have_stepped(self) -> bool:
        return len(self._others_stepped) == len(self._others)

    def _owns(self, optimizer: Optimizer) -> bool:
        known = self._owners.get(optimizer)
        if known is None:
            ours = {id(p) for p in self._parameters()}
            groups = optimizer.param_groups
            known = any(id(p) in ours for group in groups for p in group["params"])
            if known or not self._is_swapped():
                self._owners[optimizer] = known
        return known

    def _parameters(self) -> list[Any]:
        model = self._model()
        return [] if model is None else list(nn.Module.parameters(model))

    def _is_swapped(self) -> bool:
        """Whether other tensors have taken the parameters' places: `torch.func.functional_call`."""
        return not all(isinstance(p, nn.Parameter) for p in self._parameters())

    def optimizes(self, parameter: Tensor) -> bool:
        """Whether one of the model's optimizers holds a parameter."""
        ours = [optimizer for optimizer, known in self._owners.items() if known]
        groups = (group for optimizer in ours for group in optimizer.param_groups)
        return any(parameter is p for group in groups for p in group["params"])

    def _has_optimizer(self) -> bool:
        if not self._optimizer_seen and self._forwards >= self._look_again_at:
            if self._is_swapped():
                return True  # it cannot be told; such a call is one of many in a step
            # At forwards 1, 2, 4, 8, …: walking all objects takes some 10 ms.
            self._look_again_at = 2 * self._forwards
            self._optimizer_seen = any(self._owns(o) for o in gc.get_objects() if _is_optimizer(o))
        return self._optimizer_seen


def _is_optimizer(thing: object) -> bool:
    # type(), not isinstance(): some objects in the heap answer to __class__ by running code.
    return issubclass(type(thing), Optimizer)
