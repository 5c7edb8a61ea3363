"""The figures as text."""

import statistics
from collections.abc import Sequence

from .choice import training_named, watcher_named
from .goals import times_cheaper
from .pairing import Costs
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
        block = _Block([r for r in rows if r.training == name])
        blocks.append("\n".join([block.title, _COLUMNS, *(block.line(r) for r in block.rows)]))
    return "\n\n".join([*blocks, LEGEND])


class _Block:
    """The lines of one training, and what they are held against.

    Costs are compared as shares of a bare step, each by its own blocks: the machine is not as fast
    at one line as at the next.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        steps_ms = [r.costs.step_ms for r in rows if r.costs]
        self._step_ms = statistics.median(steps_ms) if steps_ms else None
        by_name = {r.watcher: r for r in rows}
        ours, floor = by_name.get(EVERY_STEP), by_name.get(FLOOR)
        self._ours = ours.costs.wall_ratio - 1 if ours and ours.costs else None
        self._read = None
        if floor and floor.costs and floor.read_ms is not None:
            self._read = floor.read_ms / floor.costs.step_ms

    @property
    def title(self) -> str:
        training = training_named(self.rows[0].training)
        took = "" if self._step_ms is None else f", {self._step_ms:.2f} ms a step"
        return f"{training.name}: {training.library}, {training.about}{took}"

    def line(self, row: Row) -> str:
        watcher, costs = watcher_named(row.watcher), row.costs
        if row.status != MEASURED or costs is None:
            return f"{watcher.about:32}  {row.status}"
        low, high = costs.wall_quartiles
        observed = f"{costs.observed_frac:.1%}" if watcher.observes else "–"
        observed = observed if row.settled else f"~{observed}"
        return (
            f"{watcher.about:32}{costs.wall_ratio:7.3f}{f'{low:.3f}–{high:.3f}':>14}"
            f"{costs.quiet_ratio:7.3f}{costs.cpu_ratio:7.3f}{observed:>10}"
            f"{self._extra(costs)}{_memory(row):>22}{row.written_bytes_per_step or 0.0:8.0f}"
        )

    def _extra(self, costs: Costs) -> str:
        # Where few steps are observed, theirs are some hundredths of what was timed: noise.
        if costs.observed_frac < 1 or self._step_ms is None:
            return f"{'–':>9}{'–':>7}{'–':>7}"
        extra = costs.wall_ratio - 1
        return f"{extra * self._step_ms:9.3f}{_times(extra, self._ours)}{_times(extra, self._read)}"


def _memory(row: Row) -> str:
    growth = row.growth
    if growth is None:
        return "–"
    return f"{growth.start_mib:.0f}{f'{growth.mib:+.1f} in {growth.n_steps}':>16}"


def _times(extra: float, of: float | None) -> str:
    return f"{'–' if of is None else f'{times_cheaper(of, extra):.1f}':>7}"
