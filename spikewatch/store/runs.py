"""The list of runs: what became of each, and what fires in it."""

from collections.abc import Iterable

import polars as pl

from ..journal import is_being_written
from ..metrics import RECORDS, TABLES
from .journals import Journal


STATES = ("running", "failed", "lost", "finished")  # of several ranks, the first that one has

_DATED = (*TABLES, "scalars", "alerts", "events")
_SEEN = " UNION ALL ".join(f'SELECT run, rank, "at", step FROM {t}' for t in _DATED)  # noqa: S608

RANKS_SQL = f"""
    WITH lasts AS (
        SELECT run, rank, max("at") AS last_at, max(step) AS last_step FROM ({_SEEN}) GROUP BY ALL
    ), starts AS (
        SELECT run, rank, min("at") AS started_at, any_value(script) AS script
        FROM runs GROUP BY ALL
    ), ends AS (
        SELECT run, rank, bool_or(kind = 'closed') AS closed, bool_or(kind = 'exception') AS failed
        FROM events GROUP BY ALL
    )
    SELECT run, rank, started_at, coalesce(last_at, started_at) AS last_at, last_step,
        coalesce(closed, false) AS closed, coalesce(failed, false) AS failed, script
    FROM starts FULL JOIN lasts USING (run, rank) LEFT JOIN ends USING (run, rank)
"""  # noqa: S608 - names of the catalogue

# A rule fires on a layer if its last transition there says so; what follows from another alert is
# not counted. Rows of a rank lie in the order in
# which they were written; that several ranks see the same is one alert.
COUNTS_SQL = """
    WITH last AS (
        SELECT run, (layer, rule) AS alert, arg_max(severity, rowid) AS severity,
            arg_max(state, rowid) = 'firing' AND last(root_rule ORDER BY rowid) IS NULL AS fires,
            bool_or(state = 'firing' AND root_rule IS NULL) AS fired
        FROM alerts GROUP BY run, rank, layer, rule
    ), alerting AS (
        SELECT run,
            count(DISTINCT alert) FILTER (fires AND severity = 'warning') AS n_warning,
            count(DISTINCT alert) FILTER (fires AND severity = 'critical') AS n_critical,
            count(DISTINCT alert) FILTER (fired AND severity = 'warning') AS n_fired_warning,
            count(DISTINCT alert) FILTER (fired AND severity = 'critical') AS n_fired_critical
        FROM last GROUP BY run
    ), layered AS (SELECT run, count(DISTINCT layer) AS n_layers FROM layers GROUP BY run)
    FROM alerting FULL JOIN layered USING (run)
"""

SCHEMA: dict[str, pl.DataType] = {
    "run": pl.String(),
    "state": pl.String(),
    "started_at": pl.Datetime("us"),
    "last_at": pl.Datetime("us"),
    "last_step": pl.Int64(),
    "n_layers": pl.Int64(),
    "n_warning": pl.Int64(),
    "n_critical": pl.Int64(),
    "n_fired_warning": pl.Int64(),
    "n_fired_critical": pl.Int64(),
    "script": RECORDS["runs"]["script"],
}


def summarize(
    ranks: pl.DataFrame, counts: pl.DataFrame, live: set[tuple[str, int]]
) -> pl.DataFrame:
    """One row per run, newest first, with the columns of `SCHEMA`.

    Args:
        ranks: What `RANKS_SQL` gives.
        counts: What `COUNTS_SQL` gives.
        live: Runs and ranks whose journal is being written.
    """
    written = pl.DataFrame(
        [(run, rank, True) for run, rank in live],
        schema={"run": pl.String, "rank": pl.Int32, "live": pl.Boolean},
        orient="row",
    )
    state = (
        pl.when(pl.col("live"))
        .then(pl.lit("running"))
        .when(pl.col("closed"))
        .then(pl.lit("finished"))
        .when(pl.col("failed"))
        .then(pl.lit("failed"))
        .otherwise(pl.lit("lost"))
        .cast(pl.Enum(STATES))
    )
    runs = (
        ranks.join(written, on=["run", "rank"], how="left")
        .with_columns(state.alias("state"))
        .sort("rank")
        .group_by("run")
        .agg(
            pl.col("state").min().cast(pl.String),
            pl.col("started_at").min(),
            pl.col("last_at", "last_step").max(),
            pl.col("script").drop_nulls().first(),
        )
        .join(counts, on="run", how="left")
        .with_columns(pl.col(c).fill_null(0) for c in SCHEMA if c.startswith("n_"))
    )
    newest = pl.coalesce("started_at", "last_at")
    return runs.sort(newest, "run", descending=[True, False]).select(
        pl.col(c).cast(t) for c, t in SCHEMA.items()
    )


def being_written(journals: Iterable[Journal]) -> set[tuple[str, int]]:
    """The runs and ranks whose journal a live process holds."""
    return {(j.run, j.rank) for j in journals if is_being_written(j.path)}
