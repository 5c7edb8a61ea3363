"""Optimizers that take turns, as a GAN's do: whether an observed step of each was seen.

Where every n-th step is observed and n has a factor in common with the steps of a round, all that
are observed may be those of one optimizer. What another one trains gets no gradient in them, and
that says nothing.
"""

import weakref
from dataclasses import dataclass

from torch.optim.optimizer import Optimizer


# Steps chosen at random would have met one of an optimizer in so many rounds, but for one time in
# a hundred.
_PATIENCE_ROUNDS = 5


@dataclass(slots=True)
class _Missed:
    """How it was when the first step was observed after an optimizer had taken turns."""

    step: int
    n_turns: int
    n_observed: int = 0  # steps since then


class Turns:
    """Follows who ends steps, and who ends observed ones."""

    def __init__(self) -> None:
        self._n_turns: weakref.WeakKeyDictionary[Optimizer, int] = weakref.WeakKeyDictionary()
        self._observed: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._missed: weakref.WeakKeyDictionary[Optimizer, _Missed] = weakref.WeakKeyDictionary()
        self._latest: weakref.ref[Optimizer] | None = None
        self._latest_is_observed = False

    def take(self, optimizer: Optimizer) -> None:
        """An optimizer ends a step, and did not end the one before."""
        self._n_turns[optimizer] = self._n_turns.get(optimizer, 0) + 1
        self._latest, self._latest_is_observed = weakref.ref(optimizer), False

    def follow(self, optimizer: Optimizer) -> None:
        """An optimizer steps after another one that has ended the step.

        It may end one itself now and then: where loss scaling skips the other one.
        """
        if self._latest_is_observed:
            self._observed.add(optimizer)

    def observe(self, step: int) -> None:
        """The step that ends just now, of this number, was observed."""
        self._latest_is_observed = True
        if self._latest is not None and (optimizer := self._latest()) is not None:
            self._observed.add(optimizer)
        for optimizer in self.missing:
            self._missed.setdefault(optimizer, _Missed(step, self._n_turns[optimizer]))
            self._missed[optimizer].n_observed += 1

    @property
    def missing(self) -> list[Optimizer]:
        """Those that take turns with others, and of which no step was observed."""
        if len(self._n_turns) < 2:
            return []
        return [o for o in self._n_turns if o not in self._observed]

    def always_missed(self, step: int) -> tuple[Optimizer, int] | None:
        """One that is missed by no accident, and how many steps were observed without one of its.

        Args:
            step: Number of the step that ends.
        """
        for optimizer in self.missing:
            if (since := self._missed.get(optimizer)) is not None:
                n_turns = self._n_turns[optimizer] - since.n_turns
                if n_turns and since.n_observed * n_turns >= _PATIENCE_ROUNDS * (step - since.step):
                    return optimizer, since.n_observed
        return None
