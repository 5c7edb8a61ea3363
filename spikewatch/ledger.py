"""The ledger: what watching costs, as the sampler is told it, and steps that need no telling."""

from .recorder import Recorder
from .sampling import Sampler


# What it takes to call the root's hook, or the optimizer's, of which these do not know: 1 or 2 µs
# in an empty loop, about 10 where a training has pushed that code out of the caches.
_HOOK_S = 1e-5


class Ledger:
    """Adds up what watching took until the sampler is told.

    Attributes:
        evaluations_s: What observing evaluations took since the latest step ended.
    """

    def __init__(self, sampler: Sampler, recorder: Recorder) -> None:
        self._sampler = sampler
        self._recorder = recorder
        self.evaluations_s = 0.0
        self._n_idle_steps = 0  # to come, of which the sampler need not be asked
        self._n_idled = 0  # gone by

    def idles(self) -> bool:
        """A step ends in which nothing was observed; whether nothing is to be done for it."""
        if not self._n_idle_steps:
            return False
        self._n_idle_steps -= 1
        self._n_idled += 1
        return True

    def tell(self, own_s: float, *, observed: bool, n_hooks: int) -> None:
        """Tell the sampler what the step that ends has cost, and those that went by before it.

        Args:
            own_s: Seconds in the training thread.
            observed: Whether something was observed in it.
            n_hooks: How often a hook is called in a step that is not observed.
        """
        own_s += _HOOK_S * n_hooks * (1 + self._n_idled)
        writer_s = self._recorder.take_cpu_s()
        if observed:
            self._sampler.spent(own_s + writer_s, on_evaluations=self.evaluations_s)
        else:
            self._sampler.spent(writer_s)
            self._sampler.spent_between(own_s)
        self.evaluations_s = 0.0

    def tell_of_evaluations(self, own_s: float) -> None:
        """Tell the sampler what evaluations have cost, before a step ends."""
        self._sampler.spent(own_s, on_evaluations=own_s)

    def choose(self, step: int) -> bool:
        """Whether step number `step`, from 0, is to be observed."""
        chosen = self._sampler.observe(step)
        self._n_idle_steps = 0 if chosen else self._sampler.idle_steps(step)
        self._n_idled = 0
        return chosen
