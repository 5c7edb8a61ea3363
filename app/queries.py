"""SQL in, Polars out: every question the pages ask of the store.

Rates are merged from their counters, exactly; what rings an alarm keeps its worst value in a
bucket; what is a state (weights, amplitudes) keeps its last. A bucket is named after its last step.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import polars as pl

from spikewatch.metrics.energy import ENERGY

from .scope import Scope


class Source(Protocol):
    """The part of `spikewatch.Store` that the pages need."""

    def sql(self, query: str, params: Mapping[str, Any] | None = None) -> pl.DataFrame:
        """Rows of a read-only query."""


def _ask(store: Source, query: str, params: Mapping[str, object]) -> pl.DataFrame:
    # DuckDB refuses parameters that a statement does not use.
    return store.sql(query, {k: v for k, v in params.items() if f"${k}" in query})


_ROWS = 'run = $run AND "rank" = $rank AND phase = $phase AND step BETWEEN $first AND $last'
_BUCKET = "least((step // $width + 1) * $width - 1, $last) AS step"

_TRENDS = {
    "spikes": {
        "mfr": "sum(n_spikes)::DOUBLE / nullif(sum(n_obs::DOUBLE * n_neurons), 0)",
        "dead_frac": "max(dead_frac)",
        "saturated_frac": "max(saturated_frac)",
    },
    "gradients": {
        "grad_rms": "sqrt(sum(sum_sq_grad) / nullif(sum(n_grad), 0))",
        "grad_norm": "avg(grad_norm)",
        "sg_mean": "sum(sum_sg) / nullif(sum(n_sg), 0)",
    },
    "weights": {
        "weight_negative_frac": "arg_max(weight_negative_frac, step)",
        "weight_zero_frac": "arg_max(weight_zero_frac, step)",
        "weight_positive_frac": "arg_max(weight_positive_frac, step)",
    },
}
_LATEST = {
    "spikes": "mfr, dead_frac, saturated_frac, n_spikes, n_obs, n_neurons, evidence_n_obs",
    "weights": "weight_zero_frac, weight_entropy_bits, delta",
    "amplitudes": "amplitude_mean, alpha_mean",
}

# The dear readings are not in every row: their latest figure counts, not the latest row's.
_LATEST_KNOWN = {"gradients": ("sg_mean", "grad_rms", "grad_norm")}


def facts(store: Source, run: str) -> pl.DataFrame:
    """Ranks and phases of a run with their first and latest step.

    Returns:
        `rank`, `phase`, `first_step`, `last_step`, `n_steps` (observed ones).
    """
    return store.sql(
        """
        SELECT "rank", phase, min(step) AS first_step, max(step) AS last_step,
               count(DISTINCT step) AS n_steps
        FROM (SELECT "rank", phase, step FROM spikes WHERE run = $run
              UNION ALL SELECT "rank", phase, step FROM weights WHERE run = $run
              UNION ALL SELECT "rank", phase, step FROM scalars WHERE run = $run)
        GROUP BY ALL ORDER BY "rank", phase DESC""",
        {"run": run},
    )


def layers(store: Source, run: str) -> pl.DataFrame:
    """Watched layers of a run from the input on: `layer`, `kind`, `library`, `type`, `note`."""
    return store.sql(
        """
        SELECT layer, arg_max(kind, "at") AS kind, arg_max(library, "at") AS library,
               arg_max("type", "at") AS "type", arg_max(note, "at") AS note
        FROM layers WHERE run = $run GROUP BY layer ORDER BY arg_max(depth, "at"), layer""",
        {"run": run},
    )


def trends(store: Source, scope: Scope, table: str) -> pl.DataFrame:
    """Metrics of `spikes`, `gradients` or `weights`: `layer`, `step` (bucket), the metrics."""
    metrics = ", ".join(f"{expr} AS {name}" for name, expr in _TRENDS[table].items())
    return _ask(
        store,
        f"SELECT layer, {_BUCKET}, {metrics} FROM {table} "  # noqa: S608 - our own names
        f"WHERE {_ROWS} GROUP BY 1, 2 ORDER BY 2",
        scope.params,
    )


def layer_trend(store: Source, scope: Scope, layer: str, table: str, metric: str) -> pl.DataFrame:
    """One metric of one layer: `step` (bucket), `value` (the bucket's last known one).

    What `trends` merges from its counters is merged here too.
    """
    merged = _TRENDS.get(table, {}).get(metric, f"arg_max({metric}, step)")
    return _ask(
        store,
        f"SELECT {_BUCKET}, {merged} AS value FROM {table} "  # noqa: S608 - our own names
        f"WHERE {_ROWS} AND layer = $layer GROUP BY 1 ORDER BY 1",
        scope.params | {"layer": layer},
    )


def energy(store: Source, scope: Scope) -> pl.DataFrame:
    """Operations and energy of all weight layers together: `step` (bucket) and the metrics."""
    counters = [c.name for c in ENERGY.counters]
    shared = ("n_samples", "sum_time_steps")  # of the step, whatever the layer
    of_step = ", ".join(f"{'max' if c in shared else 'sum'}({c}) AS {c}" for c in counters)
    of_bucket = ", ".join(f"sum({c}) AS {c}" for c in counters)
    rows = _ask(
        store,
        f"""
        WITH steps AS (SELECT step, {of_step} FROM energy WHERE {_ROWS} GROUP BY step)
        SELECT {_BUCKET}, {of_bucket} FROM steps GROUP BY 1 ORDER BY 1""",  # noqa: S608
        scope.params,
    )
    return ENERGY.compute(rows).select("step", *(m.name for m in ENERGY.metrics))


def latest(store: Source, scope: Scope) -> pl.DataFrame:
    """The latest row of each layer, all tables side by side, as they stand in the store."""
    frames = [_latest_of(store, scope, table) for table in _LATEST]
    frames += [_latest_known(store, scope, table) for table in _LATEST_KNOWN]
    joined = frames[0]
    for frame in frames[1:]:
        joined = joined.join(frame, on="layer", how="full", coalesce=True)
    return joined


def _latest_of(store: Source, scope: Scope, table: str) -> pl.DataFrame:
    return _ask(
        store,
        f"SELECT layer, {_LATEST[table]} FROM {table} "  # noqa: S608 - our own names
        f"JOIN (SELECT layer, max(step) AS step FROM {table} WHERE {_ROWS} GROUP BY layer) "
        f"USING (layer, step) WHERE {_ROWS}",
        scope.params,
    )


def _latest_known(store: Source, scope: Scope, table: str) -> pl.DataFrame:
    figures = ", ".join(f"arg_max({name}, step) AS {name}" for name in _LATEST_KNOWN[table])
    return _ask(
        store,
        f"SELECT layer, {figures} FROM {table} WHERE {_ROWS} GROUP BY layer",  # noqa: S608
        scope.params,
    )


def figures(store: Source, scope: Scope, layer: str) -> pl.DataFrame:
    """All that is known of a layer: `metric`, `value` (the latest known one), `step` (its own)."""
    return _ask(
        store,
        f"""
        SELECT metric, arg_max(value, step) AS value, max(step) AS step FROM metrics
        WHERE {_ROWS} AND layer = $layer AND value IS NOT NULL
        GROUP BY metric""",  # noqa: S608 - our own names
        scope.params | {"layer": layer},
    )


def gradient_profile(store: Source, scope: Scope, metric: str, *, n_steps: int) -> pl.DataFrame:
    """A gradient metric by layer: `now`, and `median`, `p10`, `p90` of the last observed steps.

    Args:
        store: Where to ask.
        scope: What part of the run.
        metric: `grad_rms`, `grad_norm` or `sg_mean`.
        n_steps: How many observed steps the band covers.
    """
    return _ask(
        store,
        f"""
        WITH recent AS (
            SELECT layer, step, {metric} AS value FROM gradients WHERE {_ROWS}
            AND step >= (SELECT min(step) FROM (SELECT DISTINCT step FROM gradients WHERE {_ROWS}
                         ORDER BY step DESC LIMIT {int(n_steps)})))
        SELECT layer, arg_max(value, step) AS now, median(value) AS median,
               quantile_cont(value, 0.1) AS p10, quantile_cont(value, 0.9) AS p90
        FROM recent GROUP BY layer""",  # noqa: S608 - our own names
        scope.params,
    )


def histograms(store: Source, scope: Scope, layer: str, kind: str) -> pl.DataFrame:
    """Stored histograms of a layer, the last of each bucket: `step`, `edges`, `counts`, ends."""
    return _ask(
        store,
        f"""
        SELECT {_BUCKET}, arg_max(edges, histograms.step) AS edges,
               arg_max(counts, histograms.step) AS counts,
               arg_max(below, histograms.step) AS below, arg_max(above, histograms.step) AS above
        FROM histograms WHERE {_ROWS} AND layer = $layer AND kind = $kind
        GROUP BY 1 ORDER BY 1""",  # noqa: S608 - our own names
        scope.params | {"layer": layer, "kind": kind},
    )


def histogram_kinds(store: Source, scope: Scope) -> pl.DataFrame:
    """Which layers have which histograms: `layer`, `kind`."""
    return _ask(
        store,
        f"SELECT DISTINCT layer, kind FROM histograms WHERE {_ROWS} ORDER BY ALL",  # noqa: S608
        scope.params,
    )


def scalars(store: Source, scope: Scope) -> pl.DataFrame:
    """What the user logged, mean per bucket, all phases: `name`, `phase`, `step`, `value`."""
    rows = 'run = $run AND "rank" = $rank AND step BETWEEN $first AND $last'
    return _ask(
        store,
        f"""
        WITH kept AS (SELECT name, phase, {_BUCKET}, avg(value) AS value
                      FROM scalars WHERE {rows} GROUP BY 1, 2, 3)
        SELECT kept.* FROM kept
        JOIN (SELECT name, min("at") AS began FROM scalars WHERE {rows} GROUP BY name) USING (name)
        ORDER BY (name NOT ILIKE '%loss%'), began, name, phase DESC, step""",  # noqa: S608
        scope.params,
    )


def latest_scalars(store: Source, scope: Scope) -> pl.DataFrame:
    """The latest value of each scalar in the scope's phase: `name`, `value`, as it is stored."""
    return _ask(
        store,
        f"""
        SELECT name, arg_max_null(value, step) AS value FROM scalars WHERE {_ROWS}
        GROUP BY name ORDER BY (name NOT ILIKE '%loss%'), min("at"), name""",  # noqa: S608
        scope.params,
    )


def alert_rows(store: Source, run: str) -> pl.DataFrame:
    """Every transition of every rule of a run, in the order in which they were written."""
    return store.sql("SELECT * FROM alerts WHERE run = $run ORDER BY rowid", {"run": run})


def firing_by_run(store: Source) -> pl.DataFrame:
    """Alerts that fire now, in all runs: `run`, `rule`, `severity`, `layer`, `since_step`."""
    return store.sql(
        """
        SELECT run, "rule", severity, layer, since_step FROM (
            SELECT *, row_number() OVER (
                PARTITION BY run, "rank", phase, "rule", layer ORDER BY rowid DESC) AS n
            FROM alerts)
        WHERE n = 1 AND state = 'firing' AND root_rule IS NULL
        ORDER BY (severity = 'critical') DESC, (severity = 'warning') DESC, since_step"""
    )
