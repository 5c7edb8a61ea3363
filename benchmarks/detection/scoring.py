"""What the alerts of many trainings amount to, and whether that is good enough."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spikewatch.alerts.rule import SEVERITIES

from .illness import Illness
from .running import Record, Told


RECALL_GOAL = 1.0
LESSER_PER_1000_GOAL = 1.0
CAUSE_GOAL = 0.95
MET, MISSED, NOT_MEASURED = "met", "MISSED", "not measured"


@dataclass(frozen=True)
class Case:
    """What was told of one planted illness.

    Attributes:
        illness: Its name.
        rule: The rule that has to tell it.
        seed: Of the training.
        steps_to_alert: From the onset to that rule's alert on an ill layer; None if there was none.
        first: What was told first since the onset, as `rule on layer`; all of that step.
        steps_to_first: From the onset to that; None if nothing was told.
        right_layer: Whether all that was told first is on an ill layer.
        right_cause: Whether it is there, and names the illness.
        n_told: Alerts told by themselves.
        n_in_verdict: Of all that fired, how many the verdict of the run does not fold.
    """

    illness: str
    rule: str
    seed: int
    steps_to_alert: int | None
    first: tuple[str, ...]
    steps_to_first: int | None
    right_layer: bool
    right_cause: bool
    n_told: int
    n_in_verdict: int


@dataclass(frozen=True)
class Goal:
    """One goal: whether it is met, and by what figure."""

    goal: str
    state: str
    detail: str

    def __str__(self) -> str:
        return f"goal: {self.goal}: {self.state} ({self.detail})"


@dataclass(frozen=True)
class Healthy:
    """False alarms of the healthy trainings.

    Attributes:
        n_runs: Trainings.
        n_silent: Those of which nothing was told.
        n_layer_windows: Layers times observed steps.
        n_alarms: By severity, alerts that fired, folded or not.
    """

    n_runs: int
    n_silent: int
    n_layer_windows: int
    n_alarms: Mapping[str, int]

    def per_1000(self, severity: str) -> float:
        """False alarms per 1 000 healthy layer-windows."""
        return 1000 * self.n_alarms[severity] / max(1, self.n_layer_windows)


def case_of(illness: Illness, record: Record) -> Case:
    """Judge what was told of an illness."""
    hits = [
        a.step - illness.onset
        for a in record.alerts
        if a.rule == illness.rule and illness.is_here(a.layer) and a.step >= illness.onset
    ]
    told = [(a.told_step, a) for a in record.alerts if a.told_step is not None]
    after = [(step, a) for step, a in told if step >= illness.onset]
    earliest = min((step for step, _ in after), default=None)
    first = [a for step, a in after if step == earliest]
    here = bool(first) and all(illness.is_here(a.layer) for a in first)
    return Case(
        illness=illness.name,
        rule=illness.rule,
        seed=record.seed,
        steps_to_alert=min(hits, default=None),
        first=tuple(f"{a.rule} on {a.layer}" for a in first),
        steps_to_first=None if earliest is None else earliest - illness.onset,
        right_layer=here,
        right_cause=here and all(illness.names(a.rule) for a in first),
        n_told=len(after),
        n_in_verdict=sum(a.stays_root for a in record.alerts if a.step >= illness.onset),
    )


def healthy_of(records: Sequence[Record]) -> Healthy:
    """Count false alarms."""
    alarms: list[Told] = [a for r in records for a in r.alerts]
    return Healthy(
        n_runs=len(records),
        n_silent=sum(not r.alerts for r in records),
        n_layer_windows=sum(r.n_layer_windows for r in records),
        n_alarms={s: sum(a.severity == s for a in alarms) for s in SEVERITIES},
    )


def goals(cases: Sequence[Case], healthy: Healthy) -> list[Goal]:
    """Judge all goals."""
    found = sum(c.steps_to_alert is not None for c in cases)
    right = sum(c.right_cause for c in cases)
    n, n_critical = len(cases), healthy.n_alarms["critical"]
    lesser = healthy.per_1000("warning") + healthy.per_1000("info")
    return [
        _goal("recall 100 %", _share(found, n) >= RECALL_GOAL, bool(n), f"{found} of {n}"),
        _goal("no critical false alarm", n_critical == 0, bool(healthy.n_runs), f"{n_critical}"),
        _goal(
            f"at most {LESSER_PER_1000_GOAL:g} lesser false alarm in 1 000 layer-windows",
            lesser <= LESSER_PER_1000_GOAL,
            bool(healthy.n_runs),
            f"{lesser:.3f}",
        ),
        _goal(
            f"right cause named first in at least {CAUSE_GOAL:.0%}",
            _share(right, n) >= CAUSE_GOAL,
            bool(n),
            f"{right} of {n}, {_share(right, n):.1%}",
        ),
    ]


def delay(cases: Sequence[Case]) -> tuple[float, int] | None:
    """Steps from onset to alert: median and worst, of those that were told."""
    steps = [c.steps_to_alert for c in cases if c.steps_to_alert is not None]
    return (statistics.median(steps), max(steps)) if steps else None


def _share(part: int, whole: int) -> float:
    return part / max(1, whole)


def _goal(goal: str, good: bool, measured: bool, detail: str) -> Goal:
    state = NOT_MEASURED if not measured else MET if good else MISSED
    return Goal(goal, state, detail if measured else "nothing ran")
