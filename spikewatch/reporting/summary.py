"""What is told of a run: its layers with their latest figures, and how these went."""

from typing import TYPE_CHECKING

import polars as pl


if TYPE_CHECKING:
    from ..store import Store

# Column, heading, whether it is a fraction.
COLUMNS = (
    ("mfr", "rate", True),
    ("dead_frac", "dead", True),
    ("saturated_frac", "saturated", True),
    ("sg_active_frac", "support", True),
    ("grad_norm", "‖∂L/∂s‖", False),
    ("weight_entropy_bits", "bits", False),
    ("weight_zero_frac", "zeros", True),
    ("amplitude_mean", "amplitude", False),
)
# Figures over the steps: column, heading, unit.
CURVES = (
    ("value", "Logged values", ""),
    ("mfr", "Mean firing rate", "fraction"),
    ("dead_frac", "Dead neurons", "fraction"),
    ("saturated_frac", "Saturated neurons", "fraction"),
    ("sg_active_frac", "Slots in the surrogate's support", "fraction"),
    ("grad_norm", "Gradient at the spikes, ‖∂L/∂s‖", "log"),
    ("weight_entropy_bits", "Entropy of ternary weights, bits", ""),
    ("weight_zero_frac", "Zeros among ternary weights", "fraction"),
    ("amplitude_mean", "Amplitude", ""),
)
_POINTS = 400


def layers_now(store: "Store", run: str) -> pl.DataFrame:
    """The watched layers from the input on, with the latest known figure of each column."""
    figures = ", ".join(f"arg_max({c}, step) AS {c}" for c, _, _ in COLUMNS)
    return store.sql(
        f"""
        WITH known AS (
            SELECT layer, arg_max(kind, "at") AS kind, arg_max(depth, "at") AS depth
            FROM layers WHERE run = $run GROUP BY layer
        ), latest AS (
            SELECT layer, {figures} FROM wide
            WHERE run = $run AND phase = 'train' GROUP BY layer
        )
        SELECT layer, kind, latest.* EXCLUDE (layer) FROM known LEFT JOIN latest USING (layer)
        ORDER BY depth, layer""",  # noqa: S608 - our own names
        {"run": run},
    )


def scalars_now(store: "Store", run: str) -> pl.DataFrame:
    """The latest value of each scalar: `name`, `step`, `value`."""
    return store.sql(
        "SELECT name, max(step) AS step, arg_max(value, step) AS value FROM scalars "
        "WHERE run = $run AND phase = 'train' GROUP BY name ORDER BY name",
        {"run": run},
    )


def curve(store: "Store", run: str, column: str) -> pl.DataFrame:
    """One figure over the steps: `layer`, `step`, `figure`, a mean of several where need be."""
    return store.sql(
        f"""
        WITH rows AS (
            SELECT layer, step, {column} AS figure FROM wide
            WHERE run = $run AND "rank" = 0 AND phase = 'train' AND {column} IS NOT NULL
        ), span AS (
            SELECT greatest(1, ceil((max(step) - min(step) + 1) / {_POINTS})::BIGINT) AS width
            FROM rows
        ), placed AS (
            SELECT layer, (step // width) * width AS step, avg(figure) AS figure
            FROM rows, span GROUP BY ALL
        )
        SELECT placed.* FROM placed
        LEFT JOIN (
            SELECT layer, arg_max(depth, "at") AS depth FROM layers WHERE run = $run GROUP BY layer
        ) USING (layer) ORDER BY depth, layer, step""",  # noqa: S608 - our own names
        {"run": run},
    )
