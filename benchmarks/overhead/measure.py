"""One line of the table, measured in a process of its own: steps, blocks, memory, bytes."""

import contextlib
import gc
import logging
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..models.training import Built, Step, Training
from . import memory
from .host_syncs import Syncs, count_syncs
from .pairing import Block, Costs, Pair, costs
from .row import Growth, Row
from .watchers import DEFAULTS, EVERY_STEP, Watcher, Watching


# A rival that keeps everything is let go of here, and its memory is not followed further.
MAX_GROWTH_MIB = 1024.0
# Untimed steps before anything else: lazy imports, first allocations, caches.
_WARM_STEPS = 20
# The sampler of the defaults is looked at so often while its first credit is spent.
_LOOK_S = 0.25
# Until then the writers, which wake twice a second, have written what they had.
_WRITERS_S = 0.6


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Attributes:
        n_rounds: Rounds of pairs where it matters most; a watcher may take a share of them.
        round_s: Length of a round, by the time of bare steps.
        block_s: Length of a block, at least one step. Short, so that both of a pair see the same
            machine; long enough for caches to be refilled.
        memory_steps: Watched steps over which memory is followed.
        memory_s: The same in seconds, where that is less; not for spikewatch itself.
        warm_s: Watched steps before anything is timed, at least so many seconds of them.
        settle_s: Longest wait until the sampler's first credit is spent and it observes again.
    """

    n_rounds: int = 16
    round_s: float = 2.0
    block_s: float = 0.025
    memory_steps: int = 2000
    memory_s: float = 20.0
    warm_s: float = 2.0
    settle_s: float = 30.0


QUICK = Plan(n_rounds=6, round_s=1.0, memory_steps=200, memory_s=3.0, warm_s=1.0, settle_s=10.0)


def measure(training: Training, watcher: Watcher, plan: Plan, device: torch.device) -> Row:
    """Time a bare training and a watched one by turns, and see what memory and disk it takes."""
    torch.set_num_threads(1)
    # The alerts of these trainings are evaluated, as they always are, but not shown.
    logging.getLogger("spikewatch").setLevel(logging.CRITICAL + 1)
    bare, built = training.build(device), training.build(device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(bare.step, _WARM_STEPS)
        _run(built.step, _WARM_STEPS)
        gc.collect()
        before_mib = memory.used_mib()
        if watcher.name in (DEFAULTS, EVERY_STEP):
            _use_once(training, watcher, device, folder / "first")
        watching = watcher.attach(built, folder / "timed")
        try:
            turns = _Turns(bare.step, _whole(built, watching), watching, watcher, plan)
            settled = turns.settle()
            growth = turns.grow(before_mib, ours=watcher.name in (DEFAULTS, EVERY_STEP))
            figures = turns.take(n_rounds=max(2, round(plan.n_rounds * watcher.rounds)))
        finally:
            watching.close()
        files = (folder / "timed").rglob(watcher.files)
        written = sum(f.stat().st_size for f in files if f.is_file())
        syncs = None
        if device.type == "cuda" and watcher.name == EVERY_STEP:
            syncs = _syncs(training, device, folder / "profiled")
    return Row(
        training=training.name,
        watcher=watcher.name,
        costs=figures,
        growth=growth,
        written_bytes_per_step=written / max(1, turns.n_watched),
        settled=settled,
        syncs=syncs,
    )


def _run(step: Step, n: int) -> None:
    for _ in range(n):
        step()


def _whole(built: Built, watching: Watching) -> Step:
    """A watched step: the training's own, and what the tool's user calls after it."""
    step, after = built.step, watching.after_step
    if after is None:
        return step

    def both() -> None:
        step()
        after()

    return both


def _use_once(training: Training, watcher: Watcher, device: torch.device, folder: Path) -> None:
    """A short run that is thrown away: loading libraries is no cost of a step."""
    built = training.build(device)
    watching = watcher.attach(built, folder)
    with watching.running():
        _run(built.step, _WARM_STEPS)
    watching.close()


class _Turns:
    """A bare and a watched training that run by turns."""

    def __init__(
        self, bare: Step, watched: Step, watching: Watching, watcher: Watcher, plan: Plan
    ) -> None:
        self._bare, self._watched = bare, watched
        self._watching = watching
        self._sampled = watcher.name == DEFAULTS
        self._plan = plan
        self.n_watched = 0
        self._memory_mib = 0.0

    def _watch(self, n: int) -> None:
        """Watched steps that are not timed."""
        with self._watching.running():
            _run(self._watched, n)
        self.n_watched += n

    def settle(self) -> bool:
        """Warm up; at the defaults, until the sampler lives on what it earns.

        Its first credit is spent once it no longer observes most steps. By then it may be in debt,
        and only once it observes again has it come to where a long run is all the time.

        Returns:
            Whether it came so far in the time that the plan gives it.
        """
        end = time.perf_counter() + self._plan.warm_s
        self._watch(_WARM_STEPS)
        while time.perf_counter() < end:
            self._watch(1)
        count = self._watching.n_observed
        if not self._sampled or count is None:
            return True
        sparse, end = False, time.perf_counter() + self._plan.settle_s
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
        step_s = min(_timed(self._bare, 1).wall_s for _ in range(7))
        n_steps = max(1, round(self._plan.block_s / step_s))
        n_pairs = max(2, round(self._plan.round_s / (2 * n_steps * step_s)))
        own = [_timed(self._bare, n_steps).background_s for _ in range(5)]
        rounds = [self._round(n_pairs, n_steps) for _ in range(n_rounds)]
        return costs(rounds, n_steps=n_steps, own_background_s=statistics.median(own))

    def _round(self, n_pairs: int, n_steps: int) -> list[Pair]:
        """Pairs of a bare and a watched block; the watched one comes first in every other pair."""
        if memory.used_mib() - self._memory_mib > MAX_GROWTH_MIB:
            self._watching.relieve()
        gc.collect()
        _run(self._bare, 1)
        self._watch(1)
        pairs = []
        for number in range(n_pairs):
            if number % 2:
                watched = self._watched_block(n_steps)
                pairs.append(Pair(_timed(self._bare, n_steps), watched))
            else:
                bare = _timed(self._bare, n_steps)
                pairs.append(Pair(bare, self._watched_block(n_steps)))
        return pairs

    def _watched_block(self, n_steps: int) -> Block:
        count = self._watching.n_observed
        before = 0 if count is None else count()
        with self._watching.running():
            block = _timed(self._watched, n_steps)
        self.n_watched += n_steps
        seen = n_steps if count is None else count() - before
        return replace(block, n_observed=seen)


def _timed(step: Step, n: int) -> Block:
    """Time `n` steps, to the end of what they started on the GPU."""
    _wait_for_device()
    wall, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
    _run(step, n)
    _wait_for_device()
    wall_s, thread_s = time.perf_counter() - wall, time.thread_time() - thread
    return Block(wall_s, thread_s, max(0.0, time.process_time() - process - thread_s))


def _wait_for_device() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _syncs(training: Training, device: torch.device, folder: Path) -> dict[str, Syncs]:
    """What waits for the GPU in bare steps, in steps between samples, and in observed ones."""
    import spikewatch

    found = {}
    # Step 0 is always observed; at 1 in a million no other is.
    for kind, every in (("bare", None), ("off-sample", 1_000_000), ("sampled", 1)):
        built = training.build(device)
        with contextlib.ExitStack() as stack:
            if every is not None:
                stack.enter_context(
                    spikewatch.attach(built.net, dir=folder, run=kind, every=every, quiet=True)
                )
            _run(built.step, _WARM_STEPS)
            time.sleep(1.0)  # the writer has read step 0
            found[kind] = count_syncs(built.step, n_steps=10)
    return found
