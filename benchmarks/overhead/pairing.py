"""The figures of paired blocks: what stands between two trainings that run by turns.

A machine that others use too grows slower and faster all the time. Two short blocks that follow one
another see nearly the same machine, so their ratio is stable where their times are not; flipping
the order at each pair cancels what is left of a drift; the median leaves out the pairs that were
hit by something.

But some of what watching costs comes in lumps: an observed step among many that are not, a writer
thread that wakes now and then, in whichever block it happens to be. A median of pairs would leave
out just that. So quiet pairs, without a lump, are judged by their median, and what the other pairs
took beyond it is added to it, also where it fell into the bare block. A tool whose threads work all
the time leaves no quiet pair: then both blocks of a pair together are held against bare blocks that
ran after a rest.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


# Work of other threads below this is none of a writer's: share of a block's wall time, and seconds.
_QUIET_FRAC, _QUIET_S = 0.02, 2e-4
# With fewer quiet pairs than this there is nothing to hold the others against.
_MIN_QUIET_FRAC = 0.25
# So many quiet pairs around a pair tell how long its bare block would have taken.
_N_NEIGHBOURS = 6


@dataclass(frozen=True)
class Block:
    """Some steps of one training, timed.

    Attributes:
        wall_s: Wall time.
        thread_s: CPU time of the training thread.
        background_s: CPU time of all other threads of the process.
        n_observed: Steps in it that were observed.
    """

    wall_s: float
    thread_s: float
    background_s: float = 0.0
    n_observed: int = 0


@dataclass(frozen=True)
class Pair:
    """A bare block and a watched one, one right after the other."""

    bare: Block
    watched: Block


@dataclass(frozen=True)
class Round:
    """Pairs that ran one after another.

    Attributes:
        pairs: At least one.
        alone_s: Wall time of a bare block after a rest, when no thread of the tool worked any
            more; None where the tool has none.
    """

    pairs: Sequence[Pair]
    alone_s: float | None = None


@dataclass(frozen=True)
class Costs:
    """What watching costs, over all rounds.

    Attributes:
        step_ms: Wall time of a bare step: the median over blocks.
        wall_ratio: Watched over bare, wall time, over all pairs.
        wall_quartiles: Lower and upper quartile of the same over single rounds.
        cpu_ratio: Watched over bare, CPU time of the process, over all pairs.
        cpu_quartiles: Lower and upper quartile of the same over single rounds.
        quiet_ratio: Wall ratio of the quiet pairs alone: what a step costs that is not observed
            (where not all are), and without a writer's work.
        extra_ms: Wall time that watching adds to a step.
        observed_frac: Share of the timed steps that were observed.
        n_rounds: Rounds of pairs.
        n_steps: Watched steps that were timed.
    """

    step_ms: float
    wall_ratio: float
    wall_quartiles: tuple[float, float]
    cpu_ratio: float
    cpu_quartiles: tuple[float, float]
    quiet_ratio: float
    extra_ms: float
    observed_frac: float
    n_rounds: int
    n_steps: int


def costs(
    rounds: Sequence[Round],
    *,
    n_steps: int,
    own_background_s: float = 0.0,
    relief_s: float = 0.0,
) -> Costs:
    """Summarise rounds of pairs.

    Args:
        rounds: At least two, for quartiles, of at least one pair each.
        n_steps: Steps in each block.
        own_background_s: CPU time that threads of the bare training take in a block (autograd's,
            with a GPU).
        relief_s: Time that it took, all in all, to let go of what the tool had kept.

    Raises:
        ValueError: Too few rounds, or an empty one.
    """
    if len(rounds) < 2 or not all(r.pairs for r in rounds):
        found = [len(r.pairs) for r in rounds]
        raise ValueError(f"there are rounds of {found} pairs; needed are two rounds that have some")
    pairs = [p for r in rounds for p in r.pairs]
    step_s = statistics.median(p.bare.wall_s for p in pairs) / n_steps
    n_watched = len(pairs) * n_steps
    relief = relief_s / (step_s * n_watched)

    def wall(some: Sequence[Round]) -> float:
        return wall_ratio(some, n_steps=n_steps, own_background_s=own_background_s)[0] + relief

    def cpu(some: Sequence[Pair]) -> float:
        return cpu_ratio(some, own_background_s=own_background_s) + relief

    return Costs(
        step_ms=1e3 * step_s,
        wall_ratio=wall(rounds),
        wall_quartiles=quartiles([wall([r]) for r in rounds]),
        cpu_ratio=cpu(pairs),
        cpu_quartiles=quartiles([cpu(r.pairs) for r in rounds]),
        quiet_ratio=wall_ratio(rounds, n_steps=n_steps, own_background_s=own_background_s)[1],
        extra_ms=1e3 * step_s * (wall(rounds) - 1),
        observed_frac=sum(p.watched.n_observed for p in pairs) / n_watched,
        n_rounds=len(rounds),
        n_steps=n_watched,
    )


def wall_ratio(
    rounds: Sequence[Round], *, n_steps: int, own_background_s: float = 0.0
) -> tuple[float, float]:
    """Watched over bare, wall time.

    With q the median ratio of the quiet pairs and b the bare time that quiet neighbours tell, a
    pair's excess is w + b′ − (1 + q)·b for its watched time w and its bare time b′. The lumps took
    the mean excess of the other pairs, less that of the quiet ones (which is what chance does).

    Returns:
        The ratio q + Σ lumps / Σ b, and q itself; without quiet pairs (Σ w + Σ b′) / Σ alone − 1,
        twice.
    """
    pairs = [p for r in rounds for p in r.pairs]
    every = all(p.watched.n_observed == n_steps for p in pairs)
    quiet = [
        i
        for i, p in enumerate(pairs)
        if (every or not p.watched.n_observed) and _is_without_writer(p, own_s=own_background_s)
    ]
    if len(quiet) < max(2, _MIN_QUIET_FRAC * len(pairs)):
        alone = sum(r.alone_s * len(r.pairs) for r in rounds if r.alone_s is not None)
        if alone:
            ratio = sum(p.watched.wall_s + p.bare.wall_s for p in pairs) / alone - 1
            return ratio, ratio
        quiet = list(range(len(pairs)))
    q = statistics.median(pairs[i].watched.wall_s / pairs[i].bare.wall_s for i in quiet)
    chosen = set(quiet)
    lumpy = [i for i in range(len(pairs)) if i not in chosen]
    if not lumpy:
        return q, q
    bare = [_bare_time(pairs, quiet, i) for i in range(len(pairs))]
    excess = [
        p.watched.wall_s + p.bare.wall_s - (1 + q) * b for p, b in zip(pairs, bare, strict=True)
    ]
    by_chance = statistics.fmean(excess[i] for i in quiet)
    lumps = sum(excess[i] - by_chance for i in lumpy)
    return q + lumps / sum(bare), q


def cpu_ratio(pairs: Sequence[Pair], *, own_background_s: float = 0.0) -> float:
    """Watched over bare, CPU time; what writers do in a bare block counts for the watched one."""
    bare = sum(p.bare.thread_s + own_background_s for p in pairs)
    watched = sum(p.watched.thread_s + own_background_s for p in pairs)
    writers = sum(
        p.bare.background_s + p.watched.background_s - 2 * own_background_s for p in pairs
    )
    # A clock that ticks coarsely may give short blocks no CPU time at all.
    return (watched + max(0.0, writers)) / bare if bare > 0 else 1.0


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Lower and upper quartile, interpolated between the values (0 % is the least of them)."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _is_without_writer(pair: Pair, *, own_s: float) -> bool:
    blocks = pair.bare, pair.watched
    return all(b.background_s - own_s <= max(_QUIET_S, _QUIET_FRAC * b.wall_s) for b in blocks)


def _bare_time(pairs: Sequence[Pair], quiet: Sequence[int], at: int) -> float:
    """How long a bare block takes there: the median of the nearest quiet pairs' but its own."""
    near = sorted((i for i in quiet if i != at), key=lambda i: abs(i - at))[:_N_NEIGHBOURS]
    return statistics.median(pairs[i].bare.wall_s for i in near)
