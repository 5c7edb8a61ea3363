"""When neurons fire: the time to first spike.

Notation: of a pair of sample and neuron, t is the index of the first time step with an event,
counted from 0; a pair without one within the sample's T steps is censored. Rows count evenly spread
pairs, not all of them.
"""

import polars as pl

from .declare import Counter, Table


_INT, _F64 = pl.Int64(), pl.Float64()

TIMING = Table(
    "timing",
    "Time to first spike at a spiking layer",
    [
        Counter("n_ttfs_pairs", _INT, "sum", "Pairs of sample and neuron that were followed"),
        Counter("n_ttfs_fired", _INT, "sum", "Pairs that fired within the sample"),
        Counter("sum_ttfs_steps", _F64, "sum", "Σt over the pairs that fired"),
        Counter("sum_ttfs_restricted_steps", _F64, "sum", "Σ min(t, T) over all pairs"),
        Counter("sum_ttfs_length_steps", _F64, "sum", "ΣT over all pairs"),
    ],
)


@TIMING.metric(unit="steps", bad="outside", source="first-spike coding, e.g. Mostafa 2017")
def ttfs_steps() -> pl.Expr:
    """Mean time to first spike, over the pairs of sample and neuron that fired."""
    fired = pl.col("n_ttfs_fired")
    return pl.when(fired > 0).then(pl.col("sum_ttfs_steps") / fired)


@TIMING.metric(unit="steps", bad="outside", source="restricted mean survival time, Irwin 1949")
def ttfs_restricted_steps() -> pl.Expr:
    """Mean time to first spike with silence counted as the whole sample: comparable over time.

    The mean over those that fired falls when slow neurons fall silent; this one rises.
    """
    return pl.col("sum_ttfs_restricted_steps") / pl.col("n_ttfs_pairs")


@TIMING.metric(unit="fraction", bad="high", source="right censoring")
def ttfs_censored_frac() -> pl.Expr:
    """Share of pairs of sample and neuron that did not fire within the sample."""
    return 1 - pl.col("n_ttfs_fired") / pl.col("n_ttfs_pairs")
