"""What the figures have to be, and whether they are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .pairing import Costs
from .row import Row
from .watchers import DEFAULTS, EVERY_STEP, NULL


MET, MISSED, NOT_MEASURED = "met", "MISSED", "not measured"
DEFAULTS_RATIO = 1.01
CHEAPER_TIMES = 5.0
DEAR_RIVALS = ("wandb", "tensorboard")
KEEPING_RIVAL = "sj-output"
# "A few": what the allocator and the interpreter move about in 2000 steps anyway.
FEW_MIB = 8.0


@dataclass(frozen=True)
class Verdict:
    """One goal: whether it is met, and by what figures."""

    goal: str
    state: str
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"goal: {self.goal}: {self.state}{detail}"


@dataclass(frozen=True)
class _Check:
    """One goal on one training: what was measured, against the most that it may be."""

    where: str
    value: float
    limit: float
    text: str

    @property
    def good(self) -> bool:
        return self.value <= self.limit


class _Table:
    """Rows by training and watcher."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.trainings = list(dict.fromkeys(r.training for r in rows))
        self._rows = {(r.training, r.watcher): r for r in rows}

    def row(self, training: str, watcher: str) -> Row | None:
        return self._rows.get((training, watcher))

    def costs(self, training: str, watcher: str) -> Costs | None:
        row = self.row(training, watcher)
        return None if row is None else row.costs

    def noise(self, training: str) -> float | None:
        """By how much bare is above bare in the upper quartile of its rounds; at least 0."""
        null = self.costs(training, NULL)
        return None if null is None else max(0.0, null.wall_quartiles[1] - 1)


def verdicts(rows: Sequence[Row], *, every_step_goals: Mapping[str, float]) -> list[Verdict]:
    """Judge all goals.

    Args:
        rows: What was measured. A goal of which nothing was measured is neither met nor missed.
        every_step_goals: By training, the most that watching each step may cost, as a ratio.
    """
    table = _Table(rows)
    found = [_judge(f"defaults ≤ {DEFAULTS_RATIO} and the null's noise", _defaults, table)]
    for limit in sorted(set(every_step_goals.values())):
        held = {name for name, goal in every_step_goals.items() if goal == limit}
        goal = f"every step ≤ {limit} on {', '.join(n for n in every_step_goals if n in held)}"
        found.append(_judge(goal, lambda t, x, n=limit, h=held: _every_step(t, x, n, h), table))
    for rival in DEAR_RIVALS:
        goal = f"an observed step ≥ {CHEAPER_TIMES:g} × cheaper than {rival}'s"
        found.append(_judge(goal, lambda t, x, r=rival: _cheaper(t, x, r), table))
    goal = f"defaults no dearer than {KEEPING_RIVAL}, which keeps all, within the null's noise"
    found.append(_judge(goal, _no_dearer, table))
    found.append(_judge(f"memory grows by ≤ {FEW_MIB:g} MiB", _small, table))
    if any(r.syncs for r in rows):
        found.append(_judge("no wait for the GPU in the training thread", _no_waits, table))
    return found


def _judge(goal: str, check: Callable[[_Table, str], list[_Check]], table: _Table) -> Verdict:
    checks = [c for training in table.trainings for c in check(table, training)]
    if not checks:
        return Verdict(goal, NOT_MEASURED)
    bad = [c for c in checks if not c.good]
    if bad:
        return Verdict(goal, MISSED, "; ".join(f"{c.where}: {c.text}" for c in bad))
    worst = max(checks, key=lambda c: c.value - c.limit)
    return Verdict(goal, MET, f"closest on {worst.where}: {worst.text}")


def _defaults(table: _Table, training: str) -> list[_Check]:
    costs, noise = table.costs(training, DEFAULTS), table.noise(training)
    if costs is None or noise is None:
        return []
    limit = DEFAULTS_RATIO + noise
    text = f"{costs.wall_ratio:.3f}, limit {limit:.3f}"
    return [_Check(training, costs.wall_ratio, limit, text)]


def _every_step(table: _Table, training: str, limit: float, held: set[str]) -> list[_Check]:
    costs = table.costs(training, EVERY_STEP)
    if costs is None or training not in held:
        return []
    return [_Check(training, costs.wall_ratio, limit, f"{costs.wall_ratio:.2f}")]


def _cheaper(table: _Table, training: str, rival: str) -> list[_Check]:
    ours, theirs = table.costs(training, EVERY_STEP), table.costs(training, rival)
    if ours is None or theirs is None:
        return []
    times = times_cheaper(ours.wall_ratio - 1, theirs.wall_ratio - 1)
    return [_Check(training, -times, -CHEAPER_TIMES, f"{times:.1f} ×")]


def times_cheaper(ours: float, theirs: float) -> float:
    """How many times what we add to a step they add, both as shares of a bare step.

    Shares, and not milliseconds: each was measured at another time, at which the machine was as
    fast as it was. Where ours is not above zero it is within the noise; 0.1 % is taken for it.
    """
    return theirs / max(ours, 1e-3)


def _no_dearer(table: _Table, training: str) -> list[_Check]:
    """A monitor that only keeps references computes nothing: no reading of every step is as cheap.

    So both are taken as they are used: theirs always on, ours at the defaults. No watcher makes a
    training faster: what theirs is below 1 is chance.
    """
    ours, theirs = table.costs(training, DEFAULTS), table.costs(training, KEEPING_RIVAL)
    noise = table.noise(training)
    if ours is None or theirs is None or noise is None:
        return []
    limit = max(1.0, theirs.wall_ratio) + noise
    text = f"{ours.wall_ratio:.3f} against {theirs.wall_ratio:.3f}, noise {noise:.3f}"
    return [_Check(training, ours.wall_ratio, limit, text)]


def _small(table: _Table, training: str) -> list[_Check]:
    checks = []
    for watcher in (DEFAULTS, EVERY_STEP):
        row = table.row(training, watcher)
        if row is not None and row.growth is not None:
            text = f"{row.growth.mib:.1f} MiB in {row.growth.n_steps} steps, {watcher}"
            checks.append(_Check(training, row.growth.mib, FEW_MIB, text))
    return checks


def _no_waits(table: _Table, training: str) -> list[_Check]:
    row = table.row(training, EVERY_STEP)
    if row is None or row.syncs is None:
        return []
    bare, checks = row.syncs["bare"], []
    for kind in ("off-sample", "sampled"):
        found = row.syncs[kind]
        extra = found.training_waits - bare.training_waits
        if kind == "off-sample":
            extra += found.training_copies - bare.training_copies
        text = f"{extra} more than bare in {found.n_steps} {kind} steps"
        checks.append(_Check(training, extra, 0, text))
    return checks
