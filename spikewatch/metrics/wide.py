"""One row per (phase, step, layer) with the columns of every table: what a rule's `expr` sees."""

from collections.abc import Mapping

import polars as pl

from . import KEYS, TABLES


# Scalars take part as rows whose `layer` is the scalar's name and whose figure is `value`;
# `n_nonfinite_value` is 1 where that is NaN or infinite.
SCALAR_COLUMNS: dict[str, pl.DataType] = {"value": pl.Float64(), "n_nonfinite_value": pl.Int64()}
COLUMNS: dict[str, pl.DataType] = (
    KEYS
    | {
        name: dtype
        for t in TABLES.values()
        for name, dtype in t.schema.items()
        if not dtype.is_nested()  # lists are for looking at, not for rules
    }
    | SCALAR_COLUMNS
)
_JOIN = [k for k in KEYS if k != "at"]
_EMPTY = pl.DataFrame(schema=COLUMNS)
_LISTS = {
    name: lists
    for name, table in TABLES.items()
    if (lists := [c for c, dtype in table.schema.items() if dtype.is_nested()])
}


def widen(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Join the per-layer tables (and `scalars`) into one wide frame, by step, then phase.

    Args:
        tables: Frames by table name, each with its catalogue schema. Others are ignored.

    Returns:
        A frame with exactly `COLUMNS`; what a table does not know of a row is NULL.
    """
    # A table has each row once at most, and no two tables have a figure in common. So rows under
    # one another, of which the first that knows a figure counts, are a full join; and one grouping
    # takes a sixth of the time of a join for each table.
    parts = [_without_lists(name, tables[name]) for name in TABLES if name in tables]
    tall = pl.concat([_EMPTY, *parts], how="diagonal")
    known = pl.all().first(ignore_nulls=True)
    wide = tall.group_by(_JOIN, maintain_order=True).agg(known)
    if "scalars" in tables:
        scalars = tables["scalars"].rename({"name": "layer"})
        nonfinite = (~pl.col("value").is_finite()).cast(pl.Int64).alias("n_nonfinite_value")
        wide = pl.concat([wide, scalars.with_columns(nonfinite)], how="diagonal")
    return wide.sort("step", "phase", maintain_order=True)


def _without_lists(name: str, rows: pl.DataFrame) -> pl.DataFrame:
    return rows.drop(_LISTS[name]) if name in _LISTS else rows
