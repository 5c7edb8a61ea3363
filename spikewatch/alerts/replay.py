"""Replay: rules against the history in DuckDB, with the outcome that they would have had live.

The rows come from DuckDB, whole steps at a time; the engine that takes them is the live one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from ..metrics import RECORDS
from ..metrics.wide import COLUMNS
from .endings import REMOVED
from .engine import Engine
from .rule import Rule


if TYPE_CHECKING:
    from ..store import Store

# About so many rows are held at once.
_ROWS = 100_000


@dataclass(frozen=True)
class Replayed:
    """What rules would have said of a run.

    Attributes:
        alerts: Rows of the table `alerts`, rank by rank.
        never_judged: Words on each rule that is not a shipped one and had nothing to judge.
    """

    alerts: pl.DataFrame
    never_judged: tuple[str, ...]


def replay(store: "Store", run: str, rules: Sequence[Rule]) -> Replayed:
    """Judge the history of a run.

    By the rules of the run this gives what it told while it trained. Of a run that was killed it
    also judges the last step, which may have been written and not yet been judged.

    Args:
        store: Where the run is.
        run: Its name.
        rules: Any rules.
    """
    parts: list[pl.DataFrame] = []
    idle: list[set[str]] = []
    for (rank,) in store.sql(
        'SELECT DISTINCT "rank" FROM wide WHERE run = $run ORDER BY ALL', {"run": run}
    ).iter_rows():
        engine = Engine(rules, run=run, rank=rank)
        of_rank = {"run": run, "rank": rank}
        engine.place(
            store.sql(
                'SELECT layer, arg_max(depth, "at"), arg_min(kind, "at") FROM layers '
                'WHERE run = $run AND "rank" = $rank GROUP BY layer',
                of_rank,
            ).iter_rows()
        )
        engine.end_layers(
            store.sql(
                'SELECT kind, step, "at", layer FROM events WHERE run = $run AND "rank" = $rank '
                'AND kind = $kind ORDER BY "at"',
                of_rank | {"kind": REMOVED},
            )
        )
        parts += [engine.feed(rows) for rows in _rows(store, of_rank)]
        ended = store.sql(
            'SELECT max("at") AS ended FROM events WHERE run = $run AND "rank" = $rank '
            "AND kind IN ('closed', 'exception')",
            of_rank,
        )["ended"].item()
        if ended is not None:
            parts.append(engine.tick(ended))
        idle.append(set(engine.never_judged()))
    alerts = pl.concat([pl.DataFrame(schema=RECORDS["alerts"]), *parts])
    return Replayed(alerts, tuple(sorted(set.intersection(*idle) if idle else ())))


def _rows(store: "Store", of_rank: dict[str, object]) -> Iterator[pl.DataFrame]:
    """The rows of the view `wide` of one rank, in order, whole steps at a time."""
    where = 'run = $run AND "rank" = $rank'
    counts = store.sql(
        f"SELECT step, count(*) AS n FROM wide WHERE {where} GROUP BY step ORDER BY step",  # noqa: S608
        of_rank,
    )
    columns = ", ".join(f'"{c}"' for c in COLUMNS)
    first, n_rows = None, 0
    for step, n in counts.iter_rows():
        first = step if first is None else first
        n_rows += n
        if n_rows >= _ROWS or step == counts["step"][-1]:
            yield store.sql(
                f"SELECT {columns} FROM wide WHERE {where} AND step BETWEEN $first AND $last "  # noqa: S608
                'ORDER BY step, phase, "at", layer',
                of_rank | {"first": first, "last": step},
            ).cast(dict(COLUMNS))
            first, n_rows = None, 0
