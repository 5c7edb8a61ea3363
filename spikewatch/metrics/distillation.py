"""How far a student's outputs are from its teacher's: `attach(model, teacher=…)`.

The teacher is never run for this. Compared are the outputs that the training loop itself asks both
for, where both were called with the same batch. Of large outputs (language models) some rows,
evenly spread, are.

The gap in accuracy needs the labels: log it, `watch.log(accuracy_gap=teacher's − student's)`.

Distillation helps, but "indispensable", and "a loss of 10 % without it", is said too often: BitNet,
SpikeGPT and Spikformer train without.
"""

import polars as pl

from .declare import Counter, Table


_INT, _F64 = pl.Int64(), pl.Float64()

DISTILLATION = Table(
    "distillation",
    "Outputs of a student beside its teacher's",
    [
        Counter("n_compared", _INT, "sum", "Rows of outputs that were compared"),
        Counter("sum_kl", _F64, "sum", "Σ KL(p_T ‖ p_S)·τ² over them, in nats"),
        Counter("n_agreed", _INT, "sum", "Rows with the same class in first place"),
    ],
)


@DISTILLATION.metric(unit="1", bad="high", source="Hinton, Vinyals & Dean 2015")
def kd_gap() -> pl.Expr:
    """Mean KL(p_T ‖ p_S)·τ² of the outputs at temperature τ, in nats: 0 for equal outputs."""
    return pl.col("sum_kl") / pl.col("n_compared")


@DISTILLATION.metric(unit="fraction", bad="low")
def kd_agreement_frac() -> pl.Expr:
    """Share of the outputs for which student and teacher say the same class."""
    return pl.col("n_agreed") / pl.col("n_compared")
