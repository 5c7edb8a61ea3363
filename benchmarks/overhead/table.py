"""The figures as text."""

from collections.abc import Sequence

from .choice import training_named, watcher_named
from .goals import times_cheaper
from .pairing import Costs
from .row import MEASURED, Row
from .watchers import EVERY_STEP, FLOOR


_COLUMNS = (
    f"{'watched by':32}{'wall':>7}{'quartiles':>14}{'cpu':>7}{'observed':>10}"
    f"{'ms extra':>10}{'× ours':>8}{'× read':>8}{'MiB in steps':>15}{'B/step':>9}"
)
LEGEND = """\
wall, cpu: watched time over bare time; the quartiles are wall's, over rounds.
observed: share of the timed steps (~: it still observed as at the start of a run, or not at all).
ms extra: what watching adds to an observed step; × ours: that over spikewatch's at every step;
× read: over the cost of one read of each spike tensor. MiB: growth in so many watched steps."""


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
    written, growth = row.written_bytes_per_step or 0.0, row.growth
    # Where few steps are observed, theirs are some hundredths of what was timed: that is noise.
    extra = costs.extra_ms if costs.observed_frac == 1 else None
    observed = f"{costs.observed_frac:.1%}" if watcher.observes else "–"
    return (
        f"{watcher.about:32}{costs.wall_ratio:7.3f}{f'{low:.3f}–{high:.3f}':>14}"
        f"{costs.cpu_ratio:7.3f}{('' if row.settled else '~') + observed:>10}"
        f"{'–' if extra is None else f'{extra:.3f}':>10}"
        f"{_times(extra, _costs(beside, EVERY_STEP)):>8}{_times(extra, _costs(beside, FLOOR)):>8}"
        f"{'–' if growth is None else f'{growth.mib:.1f} in {growth.n_steps}':>15}{written:9.0f}"
    )


def _costs(rows: Sequence[Row], watcher: str) -> Costs | None:
    return next((r.costs for r in rows if r.watcher == watcher), None)


def _times(extra: float | None, of: Costs | None) -> str:
    return "–" if extra is None or of is None else f"{times_cheaper(of.extra_ms, extra):.1f}"
