"""The words of a rule's condition: the catalogue's columns, and signs of life.

A layer that is not called any more has no rows, and no condition over its figures can say so. The
engine therefore makes a row where one is missing, in which only the signs of life are known.
"""

import polars as pl

from ..metrics import KEYS, METRICS
from ..metrics.wide import COLUMNS as FIGURES


# Column and meaning. They are no metrics: nothing is stored of them.
SIGNS_OF_LIFE = {
    "missed_steps": "observed steps of its phase since the layer's latest row",
    "longest_gap_steps": "the most of them that it ever missed before it came back",
    "silent_s": "seconds since anything was observed; on the line (training)",
    "longest_gap_s": "the longest time before between two observations",
}
_SIGN_TYPES: dict[str, pl.DataType] = {
    "missed_steps": pl.Int64(),
    "longest_gap_steps": pl.Int64(),
    "silent_s": pl.Float64(),
    "longest_gap_s": pl.Float64(),
}

COLUMNS: dict[str, pl.DataType] = FIGURES | _SIGN_TYPES
WORDS = [c for c in COLUMNS if c not in KEYS]


def meaning(column: str) -> str:
    """What a column of a condition is, in words; empty where the name says it all."""
    if column in METRICS:
        known = METRICS[column]
        return f"{known.meaning} [{known.unit}]"
    return SIGNS_OF_LIFE.get(column, "")
