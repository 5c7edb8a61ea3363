"""All layers at once, the worst first."""

import polars as pl
import streamlit as st
from streamlit.elements.lib.column_types import ColumnConfig

from spikewatch.metrics import METRICS

from .words import SEVERITY_COLOURS, Colour


_SPARK_POINTS = 40
_FIXED = ("status", "layer")


def layer_rows(
    layers: pl.DataFrame, latest: pl.DataFrame, spikes: pl.DataFrame, firing: pl.DataFrame
) -> pl.DataFrame:
    """One row per layer, as the table shows it; fractions in percent.

    Args:
        layers: `layer`, `kind`, `type` from the input on.
        latest: The latest row of each layer.
        spikes: Trend of the table `spikes`.
        firing: Alerts that fire now.

    Returns:
        Worst first: by severity of what fires, then dead fraction, then zero weights, then depth.
    """
    ringing = firing.group_by("layer", maintain_order=True).agg(
        pl.col("rule").unique(maintain_order=True).alias("status"),
        (pl.col("severity") == "critical").sum().alias("n_critical"),
        pl.len().alias("n_firing"),
    )
    lines = spikes.group_by("layer").agg(
        _line("mfr").alias("mfr_trend"), _line("dead_frac").alias("dead_trend")
    )
    rows = (
        layers.with_row_index("depth")
        .join(latest, on="layer", how="left")
        .join(lines, on="layer", how="left")
        .join(ringing, on="layer", how="left")
        .with_columns(pl.col("n_critical", "n_firing").fill_null(0))
        .sort(
            ["n_critical", "n_firing", "dead_frac", "weight_zero_frac", "depth"],
            descending=[True, True, True, True, False],
            nulls_last=True,
        )
    )
    unknown = pl.col("mfr").is_not_null() & pl.col("dead_frac").is_null()
    rows = rows.with_columns(
        pl.coalesce(
            "status",
            pl.when(unknown).then(pl.concat_list(pl.lit("unknown"))),
            pl.concat_list(pl.lit("ok")),
        ).alias("status")
    )
    share = pl.col(
        "mfr", "dead_frac", "saturated_frac", "weight_zero_frac", "mfr_trend", "dead_trend"
    )
    shown = rows.select(
        "status", "layer", "mfr", "mfr_trend", "dead_frac", "dead_trend", "saturated_frac",
        "sg_mean", "grad_rms", "weight_zero_frac", "weight_entropy_bits", "amplitude_mean",
        "alpha_mean", "kind", "type",
    ).with_columns(share * 100)  # fmt: skip
    return shown.select(
        c for c in shown.columns if c in _FIXED or shown[c].null_count() < shown.height
    )


def _line(column: str) -> pl.Expr:
    kept = pl.col(column).sort_by("step").drop_nulls().reverse()
    every = (kept.len() // _SPARK_POINTS + 1).cast(pl.Int64)
    return kept.filter(pl.int_range(kept.len()) % every == 0).reverse()


def columns(rows: pl.DataFrame, firing: pl.DataFrame) -> dict[str, ColumnConfig | str | None]:
    """How the table shows each column; the tooltips are the catalogue's.

    Args:
        rows: What `layer_rows` gave.
        firing: Alerts that fire now; their severity is the colour of the status.
    """
    column = st.column_config
    states = rows["status"].explode().unique(maintain_order=True).to_list()
    severities = dict(firing.select("rule", "severity").rows())
    colours: dict[str, Colour] = {
        rule: SEVERITY_COLOURS.get(s, "gray") for rule, s in severities.items()
    }
    colours |= {"ok": "green", "unknown": "gray"}
    top = _highest(rows, "mfr_trend")
    about = {name: metric.meaning for name, metric in METRICS.items()}
    return {
        "status": column.MultiselectColumn(
            "status",
            options=states,
            color=[colours.get(s, "gray") for s in states],
            width=130,
            help="The rules that fire on this layer now; *unknown*: too little evidence yet",
        ),
        "layer": column.TextColumn("layer", width=175),
        "mfr": column.NumberColumn("rate %", format="%.2f", width=60, help=about["mfr"]),
        "mfr_trend": column.LineChartColumn("rate", y_min=0, y_max=top, width=90),
        "dead_frac": column.ProgressColumn(
            "dead %", format="%.1f", min_value=0, max_value=100, width=110,
            color="red", help=about["dead_frac"],
        ),
        "dead_trend": column.LineChartColumn(
            "dead", y_min=0, y_max=100, color="red", width=90
        ),
        "saturated_frac": column.NumberColumn(
            "sat. %", format="%.1f", width=60, help=about["saturated_frac"]
        ),
        "sg_mean": column.NumberColumn("|σ′|", format="%.3f", width=60, help=about["sg_mean"]),
        "grad_rms": column.NumberColumn(
            "∂L/∂s RMS", format="%.2e", width=90, help=about["grad_rms"]
        ),
        "weight_zero_frac": column.ProgressColumn(
            "zero weights %", format="%.1f", min_value=0, max_value=100, width=105,
            help=about["weight_zero_frac"],
        ),
        "weight_entropy_bits": column.NumberColumn(
            "entropy bit", format="%.2f", width=80, help=about["weight_entropy_bits"]
        ),
        "amplitude_mean": column.NumberColumn(
            "amplitude", format="%.3f", width=80, help=about["amplitude_mean"]
        ),
        "alpha_mean": column.NumberColumn("α", format="%.3f", width=70, help=about["alpha_mean"]),
        "kind": column.TextColumn("kind", width=80),
        "type": column.TextColumn("type", width=110),
    }  # fmt: skip


def _highest(rows: pl.DataFrame, column: str) -> float:
    if column not in rows.columns:
        return 1.0
    highest = rows[column].explode().max()
    return float(highest) if highest else 1.0  # ty: ignore[invalid-argument-type]
