"""The figures as text."""

from collections.abc import Sequence

from spikewatch.alerts.rule import SEVERITIES

from .running import Record
from .scoring import Case, Healthy, delay


_COLUMNS = f"{'rule':32}{'found':>8}{'steps to alert':>16}{'layer':>8}{'cause':>8}{'told':>7}"
LEGEND = """\
found: planted illnesses that the rule told, on an ill layer. steps to alert: from the onset, median
and worst. layer, cause: how often what was told first was on an ill layer, and named the illness.
told: alerts told by themselves, per training; the rest was folded under them."""


def render(cases: Sequence[Case]) -> str:
    """One line for each rule."""
    rules = list(dict.fromkeys(c.rule for c in cases))
    lines = [_line(rule, [c for c in cases if c.rule == rule]) for rule in rules]
    return "\n".join([_COLUMNS, *lines, _line("all", cases), LEGEND])


def _line(name: str, cases: Sequence[Case]) -> str:
    n = len(cases)
    found = sum(c.steps_to_alert is not None for c in cases)
    steps = delay(cases)
    took = "–" if steps is None else f"{steps[0]:g} / {steps[1]}"
    right = [sum(c.right_layer for c in cases), sum(c.right_cause for c in cases)]
    told = sum(c.n_told for c in cases) / max(1, n)
    return (
        f"{name:32}{f'{found}/{n}':>8}{took:>16}"
        f"{f'{right[0]}/{n}':>8}{f'{right[1]}/{n}':>8}{told:>7.1f}"
    )


def render_healthy(healthy: Healthy) -> str:
    """False alarms."""
    rates = ", ".join(
        f"{severity} {healthy.n_alarms[severity]} ({healthy.per_1000(severity):.3f} in 1 000)"
        for severity in reversed(SEVERITIES)
    )
    return (
        f"healthy trainings: {healthy.n_runs}, silent {healthy.n_silent}; "
        f"{healthy.n_layer_windows} layer-windows; false alarms: {rates}"
    )


def render_misses(cases: Sequence[Case], twins: Sequence[Record]) -> str:
    """What went wrong, one by one; empty if nothing did."""
    lines = [
        f"not found: {c.rule} of {c.illness}, seed {c.seed}; told first: {_first(c)}"
        for c in cases
        if c.steps_to_alert is None
    ]
    lines += [
        f"not named first: {c.rule} of {c.illness}, seed {c.seed}; told first: {_first(c)}"
        for c in cases
        if not c.right_cause and c.steps_to_alert is not None
    ]
    lines += [
        f"false alarm: {a.severity} {a.rule} on {a.layer} at step {a.step}: {r.bed}, seed {r.seed}"
        for r in twins
        for a in r.alerts
    ]
    return "\n".join(lines)


def _first(case: Case) -> str:
    return ", ".join(case.first) or "nothing"
