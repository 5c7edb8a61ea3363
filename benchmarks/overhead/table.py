"""The figures as text."""

from collections.abc import Sequence

from .choice import training_named, watcher_named
from .goals import times_cheaper
from .row import MEASURED, Row
from .watchers import EVERY_STEP, FLOOR


_COLUMNS = (
    f"{'watched by':32}{'wall':>7}{'quartiles':>14}{'quiet':>7}{'cpu':>7}{'observed':>10}"
    f"{'ms extra':>9}{'× ours':>7}{'× read':>7}{'MiB':>6}{'+ MiB in steps':>16}{'B/step':>8}"
)
LEGEND = """\
wall, cpu: watched time over bare time; the quartiles are wall's, over rounds.
quiet: wall in blocks without a writer's work and, at the defaults, without an observed step.
observed: share of the timed steps (~: it still observed as at the start of a run, or not at all).
ms extra: what watching adds to an observed step; × ours: that over spikewatch's at every step;
× read: over the time to read each spike tensor once. MiB: what it takes once, imports apart, and
what it grows by in so many watched steps; a tool that keeps everything is stopped at 1 GiB."""


def render(rows: Sequence[Row]) -> str:
    """One table: a block of lines for each training."""
    blocks = []
    for name in dict.fromkeys(r.training for r in rows):
        mine = [r for r in rows if r.training == name]
        blocks.append("\n".join([_title(mine), _COLUMNS, *(_line(r, mine) for r in mine)]))
    return "\n\n".join([*blocks, LEGEND])


def _title(rows: Sequence[Row]) -> str:
    training = training_named(rows[0].training)
    measured = [r.costs.step_ms for r in rows if r.costs]
    took = f", {sorted(measured)[len(measured) // 2]:.2f} ms a step" if measured else ""
    return f"{training.name}: {training.library}, {training.about}{took}"


def _line(row: Row, beside: Sequence[Row]) -> str:
    watcher = watcher_named(row.watcher)
    costs = row.costs
    if row.status != MEASURED or costs is None:
        return f"{watcher.about:32}  {row.status}"
    low, high = costs.wall_quartiles
    # Where few steps are observed, theirs are some hundredths of what was timed: that is noise.
    extra = costs.extra_ms if costs.observed_frac == 1 else None
    observed = f"{costs.observed_frac:.1%}" if watcher.observes else "–"
    observed = observed if row.settled else f"~{observed}"
    return (
        f"{watcher.about:32}{costs.wall_ratio:7.3f}{f'{low:.3f}–{high:.3f}':>14}"
        f"{costs.quiet_ratio:7.3f}{costs.cpu_ratio:7.3f}{observed:>10}"
        f"{'–' if extra is None else f'{extra:.3f}':>9}"
        f"{_times(extra, _ours_ms(beside)):>7}{_times(extra, _read_ms(beside)):>7}"
        f"{_memory(row):>22}{row.written_bytes_per_step or 0.0:8.0f}"
    )


def _memory(row: Row) -> str:
    growth = row.growth
    if growth is None:
        return "–"
    return f"{growth.start_mib:.0f}{f'{growth.mib:+.1f} in {growth.n_steps}':>16}"


def _ours_ms(rows: Sequence[Row]) -> float | None:
    return next((r.costs.extra_ms for r in rows if r.watcher == EVERY_STEP and r.costs), None)


def _read_ms(rows: Sequence[Row]) -> float | None:
    return next((r.read_ms for r in rows if r.watcher == FLOOR), None)


def _times(extra_ms: float | None, of_ms: float | None) -> str:
    return "–" if extra_ms is None or of_ms is None else f"{times_cheaper(of_ms, extra_ms):.1f}"
