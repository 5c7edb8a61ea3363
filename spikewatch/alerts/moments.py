"""Moments: rows that were observed together.

The layers of a step come at once, at its end; what the user logs of it comes a little earlier or
later. What fires in one moment has no order in time, so causes are looked for in all of it.
"""

from datetime import datetime, timedelta

import polars as pl


# Rows of one step and phase belong together if they come in within this time of the first.
TOGETHER = timedelta(seconds=0.5)
MOMENT = "moment"
ORDER = ("step", "phase", "at")


def in_moments(wide: pl.DataFrame) -> pl.DataFrame:
    """Rows in order, with the column `MOMENT`: equal for rows that were observed together."""
    wide = wide.sort(ORDER, maintain_order=True)
    ids: list[int] = []
    first: tuple[int, str, datetime | None] | None = None
    for step, phase, at in wide.select(ORDER).iter_rows():
        if first is None or not _together(first, (step, phase, at)):
            first = (step, phase, at)
            ids.append(len(ids))
        else:
            ids.append(ids[-1])
    return wide.with_columns(pl.Series(MOMENT, ids, dtype=pl.Int64))


def _together(
    first: tuple[int, str, datetime | None], row: tuple[int, str, datetime | None]
) -> bool:
    if first[:2] != row[:2]:
        return False
    return first[2] is None or row[2] is None or row[2] - first[2] < TOGETHER


class Waiting:
    """Rows of the latest step, of which there may come more."""

    def __init__(self) -> None:
        self._rows: pl.DataFrame | None = None

    def add(self, wide: pl.DataFrame) -> pl.DataFrame:
        """Take rows; return those of the steps that are complete, because a later one has begun."""
        rows = wide if self._rows is None else pl.concat([self._rows, wide])
        latest = pl.col("step") == rows["step"].max()
        self._rows = rows.filter(latest)
        return rows.filter(~latest)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return self._rows is None or self._rows.is_empty()

    def take(self, *, before: datetime | None = None) -> pl.DataFrame | None:
        """The rows that wait; with `before`, only if all of their moments began before it."""
        rows = self._rows
        if rows is None or rows.is_empty():
            return None
        if before is not None and any(at > before for at in rows["at"].drop_nulls()):
            return None
        self._rows = None
        return rows
