"""Two trainings that run by turns, one bare and one watched, and the clock beside them."""

import gc
import statistics
import time
from dataclasses import dataclass, replace

import torch

from ..models.training import Step
from . import memory
from .pairing import Block, Costs, Pair, Round, costs
from .row import Growth
from .watchers import DEFAULTS, Watcher, Watching


# A tool that keeps everything is let go of here, and its memory is not followed further.
MAX_GROWTH_MIB = 1024.0
# Untimed steps before anything else: lazy imports, first allocations, caches.
WARM_STEPS = 20
# The sampler of the defaults is looked at so often while its first credit is spent.
_LOOK_S = 0.25
# Until then the writers have written what they had.
_WRITERS_S = 1.0
# Bare blocks after such a rest; the first is slow, for the machine has gone to sleep.
_N_ALONE = 7


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Warming up takes no longer than the rounds; nor does the wait, after that, until the sampler's
    first credit is spent.

    Attributes:
        n_rounds: Rounds of pairs where it matters most; a watcher may take a share of them.
        round_s: Length of a round, by the time of bare steps.
        block_s: Length of a block, at least one step. Short, so that both of a pair see the same
            machine; long enough for caches to be refilled.
        memory_steps: Watched steps over which memory is followed.
        memory_s: The same in seconds, where that is less; not for spikewatch itself.
        warm_s: Seconds of watched steps before anything is timed or weighed.
    """

    n_rounds: int = 16
    round_s: float = 2.0
    block_s: float = 0.025
    memory_steps: int = 2000
    memory_s: float = 20.0
    warm_s: float = 2.0


QUICK = Plan(n_rounds=6, round_s=1.0, memory_steps=200, memory_s=3.0, warm_s=1.0)


def run(step: Step, n: int) -> None:
    """Take `n` steps."""
    for _ in range(n):
        step()


class Turns:
    """A bare and a watched training that run by turns."""

    def __init__(
        self, bare: Step, watched: Step, watching: Watching, watcher: Watcher, plan: Plan
    ) -> None:
        self._bare, self._watched = bare, watched
        self._watching = watching
        self._sampled = watcher.name == DEFAULTS
        self._threads = watcher.threads
        self._plan = plan
        self.n_watched = 0
        self._memory_mib = 0.0
        self._relief_s = 0.0

    def _watch(self, n: int) -> None:
        """Watched steps that are not timed."""
        with self._watching.running():
            run(self._watched, n)
        self.n_watched += n

    def settle(self) -> bool:
        """Warm up; at the defaults, until the sampler lives on what it earns.

        Its first credit is spent once it no longer observes most steps. By then it may be in debt,
        and only once it observes again has it come to where a long run is all the time.

        Returns:
            Whether it came so far in time.
        """
        rounds_s = self._plan.n_rounds * self._plan.round_s
        end = time.perf_counter() + min(self._plan.warm_s, rounds_s)
        self._watch(WARM_STEPS)
        while time.perf_counter() < end:
            self._watch(1)
        count = self._watching.n_observed
        if not self._sampled or count is None:
            return True
        sparse = False
        end = time.perf_counter() + rounds_s
        while time.perf_counter() < end:
            before, steps_before = count(), self.n_watched
            look_again = time.perf_counter() + _LOOK_S
            while time.perf_counter() < look_again:
                self._watch(1)
            seen = count() - before
            if sparse and seen:
                return True
            sparse = sparse or seen < (self.n_watched - steps_before) / 2
        return False

    def grow(self, before_mib: float, *, ours: bool) -> Growth:
        """Follow the memory over many watched steps; then let go of what the tool keeps."""
        self._watching.relieve()
        time.sleep(_WRITERS_S)
        gc.collect()
        before, n, grown = memory.used_mib(), 0, 0.0
        end = time.perf_counter() + self._plan.memory_s
        while n < self._plan.memory_steps and grown < MAX_GROWTH_MIB:
            if not ours and time.perf_counter() > end:
                break
            some = min(10, self._plan.memory_steps - n)
            self._watch(some)
            n += some
            grown = memory.used_mib() - before
        time.sleep(_WRITERS_S)
        gc.collect()
        grown = memory.used_mib() - before
        self._watching.relieve()
        self._memory_mib = memory.used_mib()
        return Growth(start_mib=before - before_mib, mib=grown, n_steps=n)

    def take(self, *, n_rounds: int) -> Costs:
        """Time rounds of pairs."""
        step_s = min(timed(self._bare, 1).wall_s for _ in range(7))
        n_steps = max(1, round(self._plan.block_s / step_s))
        n_pairs = max(2, round(self._plan.round_s / (2 * n_steps * step_s)))
        own = [timed(self._bare, n_steps).background_s for _ in range(5)]
        rounds = [self._round(n_pairs, n_steps) for _ in range(n_rounds)]
        self._relieve()
        return costs(
            rounds,
            n_steps=n_steps,
            own_background_s=statistics.median(own),
            relief_s=self._relief_s,
        )

    def _relieve(self) -> None:
        """Let go of what the tool keeps. It put the freeing off, so this is a part of its cost."""
        began = time.perf_counter()
        self._watching.relieve()
        self._relief_s += time.perf_counter() - began

    def _round(self, n_pairs: int, n_steps: int) -> Round:
        """Pairs of a bare and a watched block; the watched one comes first in every other pair."""
        if memory.used_mib() - self._memory_mib > MAX_GROWTH_MIB:
            self._relieve()
        run(self._bare, 1)
        self._watch(1)
        pairs = []
        for number in range(n_pairs):
            if number % 2:
                watched = self._watched_block(n_steps)
                pairs.append(Pair(timed(self._bare, n_steps), watched))
            else:
                bare = timed(self._bare, n_steps)
                pairs.append(Pair(bare, self._watched_block(n_steps)))
        if not self._threads:
            return Round(pairs)
        time.sleep(_WRITERS_S)
        alone = [timed(self._bare, n_steps).wall_s for _ in range(_N_ALONE)]
        return Round(pairs, statistics.median(alone))

    def _watched_block(self, n_steps: int) -> Block:
        count = self._watching.n_observed
        before = 0 if count is None else count()
        with self._watching.running():
            block = timed(self._watched, n_steps)
        self.n_watched += n_steps
        seen = n_steps if count is None else count() - before
        return replace(block, n_observed=seen)


def timed(step: Step, n: int) -> Block:
    """Time `n` steps, to the end of what they started on the GPU."""
    _wait_for_device()
    wall, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
    run(step, n)
    _wait_for_device()
    wall_s, thread_s = time.perf_counter() - wall, time.thread_time() - thread
    return Block(wall_s, thread_s, max(0.0, time.process_time() - process - thread_s))


def _wait_for_device() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
