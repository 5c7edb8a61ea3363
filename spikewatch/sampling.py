"""Which steps are observed: every n-th, or as many as an overhead budget pays for."""

import time
from collections.abc import Callable
from typing import Protocol

from .errors import AttachError


# Share of the wall time that `every="auto"` may spend on observing.
BUDGET_FRAC = 0.01
# Credit at the start: the first steps tell most, and a short run should be seen as well.
BURST_S = 0.2
# Of all that is earned evaluations get this part, and more only where training leaves it over: each
# begins with a pass that is observed, and would else take all there is.
EVALUATIONS_FRAC = 0.25
# Once half of that is gone, the next observed step is at least this part of a run's length away.
_THIN_OUT = 4
# In steps that are not observed our hooks still take some microseconds, which is much of the budget
# of a training that takes a few milliseconds a step. They get this part of it at most.
_BETWEEN_FRAC = 0.7
# So many steps at most go by without a look at the clock: one that is observed comes late by no
# more, should steps take longer all at once.
_MOST_IDLE_STEPS = 16
# Rates first: the first observed steps have all readings, later ones the dear ones now and then.
# Those cost as much as all the others together.
_ALL_DETAILED = 8
_DETAILED_EVERY_STEPS = 16
_DETAILED_EVERY_OF_BUDGET = 4


class Sampler(Protocol):
    """Decides, before a step begins, whether it is observed."""

    def observe(self, step: int) -> bool:
        """Whether step `step` is to be observed."""

    def idle_steps(self, step: int) -> int:
        """How many steps after `step`, which is not observed, need not be asked for."""

    def observe_evaluation(self, n: int) -> bool:
        """Whether sample (or batch of them) number `n` of an evaluation, from 0, is observed."""

    def detailed(self) -> bool:
        """Whether the dear readings (σ′, membrane, histograms) are due in the step just chosen."""

    def spent(self, seconds: float, *, on_evaluations: float = 0.0) -> None:
        """Take note that observing cost so much time, and how much of that evaluations did."""

    def spent_between(self, seconds: float) -> None:
        """Take note that a step that is not observed cost so much time."""


class _Detail:
    """Which observed steps have the dear readings: the first ones, then one in `every_observed`.

    Of steps and of evaluations alike, each counted apart: where they take turns, every sixteenth of
    both together would always be one of the same.
    """

    def __init__(self, every_observed: int) -> None:
        self._n_observed = {"steps": 0, "evaluations": 0}
        self._latest = "steps"
        self._every_observed = every_observed

    def detailed(self) -> bool:
        """Whether the step, or evaluation, that was chosen last has them."""
        n = self._n_observed[self._latest]
        return n <= _ALL_DETAILED or n % self._every_observed == 0

    def _count(self, what: str, *, chosen: bool) -> bool:
        self._n_observed[what] += chosen
        self._latest = what
        return chosen


class Fixed(_Detail):
    """Observe every `every`-th step, beginning with step 0."""

    def __init__(self, every: int) -> None:
        super().__init__(max(1, _DETAILED_EVERY_STEPS // every))
        self.every = every

    def observe(self, step: int) -> bool:
        """True for every `every`-th step, step 0 among them."""
        return self._count("steps", chosen=step % self.every == 0)

    def idle_steps(self, step: int) -> int:
        """Those until the next one that is chosen."""
        return min(_MOST_IDLE_STEPS, self.every - 1 - step % self.every)

    def observe_evaluation(self, n: int) -> bool:
        """As of steps."""
        return self._count("evaluations", chosen=n % self.every == 0)

    def spent(self, seconds: float, *, on_evaluations: float = 0.0) -> None:
        """Cost does not matter here."""

    def spent_between(self, seconds: float) -> None:
        """Nor here."""


class Budget(_Detail):
    """A token bucket: time passes credit in, observing takes credit out.

    Over any long stretch the time spent stays below `frac` of the wall time (plus the burst once),
    whatever a step or an observation costs, and without a model of either.

    Half of the first credit goes to the very first steps, where most illnesses begin; the other
    half is spread ever thinner over those that follow, so that a short run is seen to its end.
    """

    def __init__(
        self,
        frac: float = BUDGET_FRAC,
        *,
        burst_s: float = BURST_S,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(_DETAILED_EVERY_OF_BUDGET)
        self.frac = frac
        self.burst_s = burst_s
        self._clock = clock
        self._credit_s = self._earned_s = burst_s
        self._evaluations_s = self._between_s = 0.0
        self._last_s = self._asked_s = clock()
        self._asked_step = 0
        self._step_s = 0.0  # 0: not known
        self._due = 0

    def observe(self, step: int) -> bool:
        """True for step 0, and for as many others as the credit pays for."""
        chosen = self._count("steps", chosen=self._choose(step))
        self._step_s = (self._last_s - self._asked_s) / max(1, step - self._asked_step)
        self._asked_s, self._asked_step = self._last_s, step
        return chosen

    def _choose(self, step: int) -> bool:
        rich = self._earn()
        chosen = step == 0 or rich or (self._credit_s > 0 and step >= self._due)
        if chosen:
            self._due = max(self._due, step + max(1, step // _THIN_OUT))
        return chosen

    def idle_steps(self, step: int) -> int:
        """Half of those that go by until there is credit again, if steps stay as long as they are.

        Each look at the clock costs as much as all else that is done in a step not observed.
        """
        if self._step_s <= 0:
            return 0
        earned_s = self.frac * self._step_s  # in a step
        until_credit = max(-self._credit_s / earned_s, self._due - step)
        until_rich = (self.burst_s / 2 - self._credit_s) / earned_s
        return max(0, int(min(_MOST_IDLE_STEPS, until_credit / 2, until_rich / 2)))

    def observe_evaluation(self, n: int) -> bool:
        """True for the first one, and for as many others, as the part of evaluations pays for."""
        pays = self._earn() or self._evaluations_s <= EVALUATIONS_FRAC * self._earned_s
        return self._count("evaluations", chosen=pays and self._choose(n))

    def spent(self, seconds: float, *, on_evaluations: float = 0.0) -> None:
        """Take `seconds` out of the bucket; it may go into debt."""
        self._credit_s -= seconds
        self._evaluations_s += on_evaluations

    def spent_between(self, seconds: float) -> None:
        """Have what is earned pay for that first."""
        self._between_s += seconds

    def _earn(self) -> bool:
        """Put in what the time has earned; whether half of the bucket is full."""
        now = self._clock()
        earned = self.frac * (now - self._last_s)
        earned -= min(self._between_s, _BETWEEN_FRAC * earned)
        self._between_s = 0.0
        self._credit_s = min(self.burst_s, self._credit_s + earned)
        self._earned_s += earned
        self._last_s = now
        return self._credit_s > self.burst_s / 2


def make_sampler(every: int | str) -> Sampler:
    """The sampler for `attach(every=…)`.

    Raises:
        AttachError: `every` is neither `"auto"` nor a whole number of steps ≥ 1.
    """
    if every == "auto":
        return Budget()
    if isinstance(every, int) and not isinstance(every, bool) and every >= 1:
        return Fixed(every)
    raise AttachError(
        f"`every` was {every!r}. Give a whole number of steps ≥ 1 (1 observes every step), or "
        f"'auto', which keeps the cost of observing under {BUDGET_FRAC:.0%} of the training time."
    )
