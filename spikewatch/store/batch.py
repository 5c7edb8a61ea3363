"""Rows on their way from journals to the database, in the catalogue's form."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import polars as pl

from ..journal import Frame
from .journals import Journal
from .schema import FRAMES


_log = logging.getLogger("spikewatch")


@dataclass
class Progress:
    """How far a journal was read."""

    journal: Journal
    file_id: bytes
    end: int
    unknown: set[str]


@dataclass
class Batch:
    """Rows to be committed together, and how far the journals are then read."""

    rows: dict[tuple[Journal, str], list[pl.DataFrame]] = field(default_factory=dict)
    progress: dict[Journal, Progress] = field(default_factory=dict)
    stale: set[tuple[str, int]] = field(default_factory=set)
    n_bytes: int = 0

    def add(self, progress: Progress, frame: Frame) -> None:
        """Put what was read of a journal in."""
        journal = progress.journal
        self.n_bytes += frame.end - progress.end
        progress.end = frame.end
        self.progress[journal] = progress
        if frame.skipped:
            self.rows.setdefault((journal, "events"), []).append(_damage_report(journal, frame))
        for table, rows in frame.tables.items():
            if table not in FRAMES:
                progress.unknown.add(table)
            elif rows.height:
                self.rows.setdefault((journal, table), []).append(rows)

    def frames(self) -> Iterator[tuple[str, pl.DataFrame]]:
        """The rows by table, in the catalogue's form; notes what has no place there."""
        tables: dict[str, list[pl.DataFrame]] = {}
        for (journal, table), parts in self.rows.items():
            for rows in _concat(parts):
                unfit = _unfit(rows, table)
                self.progress[journal].unknown.update(unfit.values())
                fit = _conform(rows.drop(unfit) if unfit else rows, table, journal)
                tables.setdefault(table, []).append(fit)
        for table, parts in tables.items():
            # DuckDB takes each chunk on its own: thousands of small ones cost ten times as much.
            yield table, pl.concat(parts).rechunk()


def _concat(parts: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """The parts as one frame; as they are, where a run that was resumed has other columns."""
    try:
        return [pl.concat(parts, rechunk=True)]
    except pl.exceptions.PolarsError:
        return parts


def _unfit(rows: pl.DataFrame, table: str) -> dict[str, str]:
    """Columns that the table has no place for, and how they are remembered."""
    schema = FRAMES[table]
    unfit = {}
    for column, dtype in rows.schema.items():
        wanted = schema.get(column)
        if wanted is None:
            unfit[column] = f"{table}.{column}"
        elif not (
            dtype in (wanted, pl.Null)
            or (dtype.is_numeric() and wanted.is_numeric())
            or (isinstance(dtype, pl.Datetime) and isinstance(wanted, pl.Datetime))
        ):
            unfit[column] = f"{table}.{column} ({dtype})"
    return unfit


def _conform(rows: pl.DataFrame, table: str, journal: Journal) -> pl.DataFrame:
    """Rows with just the catalogue's columns; those they lack are NULL."""
    schema = FRAMES[table]
    if rows.schema != schema:
        rows = rows.select(
            (pl.col(c).cast(t, strict=False) if c in rows.columns else pl.lit(None, t).alias(c))
            for c, t in schema.items()
        )
    return rows.with_columns(
        pl.lit(journal.run, pl.String).alias("run"), pl.lit(journal.rank, pl.Int32).alias("rank")
    )


def _damage_report(journal: Journal, frame: Frame) -> pl.DataFrame:
    message = (
        f"{frame.skipped} bytes of {journal.path.name} before byte {frame.end} are damaged and "
        "were left out: what was observed then is lost. Check the disk."
    )
    _log.warning("spikewatch: run %r: %s", journal.run, message)
    event = {
        "run": journal.run,
        "rank": journal.rank,
        "step": None,
        "at": datetime.now(UTC).replace(tzinfo=None),
        "kind": "fault",
        "layer": "",
        "message": message,
    }
    return pl.DataFrame([event], schema=FRAMES["events"])
