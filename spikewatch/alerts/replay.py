"""Replay: rules against the history in DuckDB, with the outcome that they would have had live."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from ..metrics import RECORDS
from .judging import judging_sql
from .machine import Machine
from .rule import Rule


if TYPE_CHECKING:
    from ..store import Store


def replay(store: "Store", run: str, rules: Sequence[Rule]) -> pl.DataFrame:
    """What rules would have said of a run.

    Args:
        store: Where the run is.
        run: Its name.
        rules: Any rules.

    Returns:
        Rows of the table `alerts`, rank by rank.
    """
    judged = store.sql(judging_sql(rules, "wide WHERE run = $run"), {"run": run})
    parts = [
        Machine(rules, run=run, rank=int(rank)).walk(rows)
        for (rank,), rows in judged.group_by("rank", maintain_order=True)
    ]
    return pl.concat(parts) if parts else pl.DataFrame(schema=RECORDS["alerts"])
