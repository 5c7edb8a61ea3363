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


def widen(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Join the per-layer tables (and `scalars`) into one wide frame, by step, then layer.

    Args:
        tables: Frames by table name, each with its catalogue schema. Others are ignored.

    Returns:
        A frame with exactly `COLUMNS`; what a table does not know of a row is NULL.
    """
    wide = pl.DataFrame(schema={k: KEYS[k] for k in (*_JOIN, "at")})
    for name in TABLES:
        if name in tables:
            part = tables[name]
            wide = wide.join(part, on=_JOIN, how="full", coalesce=True, suffix="_right")
            wide = wide.with_columns(pl.coalesce("at", "at_right")).drop("at_right")
    if "scalars" in tables:
        scalars = tables["scalars"].rename({"name": "layer"})
        nonfinite = (~pl.col("value").is_finite()).cast(pl.Int64).alias("n_nonfinite_value")
        wide = pl.concat([wide, scalars.with_columns(nonfinite)], how="diagonal")
    missing = [pl.lit(None, dtype=d).alias(c) for c, d in COLUMNS.items() if c not in wide.columns]
    return (
        wide.with_columns(missing).select(list(COLUMNS)).sort("step", "phase", maintain_order=True)
    )
