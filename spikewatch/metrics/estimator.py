"""Estimator: whether what stands in for a quantizer's derivative passes gradients on as it should.

A quantizer is a step function, so its backward pass is an invention: a straight-through estimator
hands ∂L/∂w_t, the gradient of the quantized weight, on to the latent one as it is; TTQ multiplies
it by W_p, 1 or W_n; others clip it. The gradients on both sides are added up over all forward
passes of a step, at a fixed sample of the weights, and compared when the optimizer has stepped:
AMP's scale and clipping by norm cancel out.

NULL where several ranks train: the optimizer then has the mean over the ranks, and each rank only
its own gradient of the quantized weight. NULL, too, where one forward pass of a layer multiplies
with its weights more than once.
"""

import polars as pl

from .declare import Counter, Table


_INT, _F64 = pl.Int64(), pl.Float64()

ESTIMATOR = Table(
    "estimator",
    "Gradient estimator of a ternary layer",
    [
        Counter("sum_dot_gradients", _F64, "sum", "Σ ∂L/∂w_t · ∂L/∂w̃ over the sample"),
        Counter("sum_sq_gradient_quantized", _F64, "sum", "Σ (∂L/∂w_t)²"),
        Counter("sum_sq_gradient_latent", _F64, "sum", "Σ (∂L/∂w̃)²"),
        Counter("n_zeros_graded", _INT, "sum", "Weights at 0 with ∂L/∂w_t ≠ 0"),
        Counter("n_zeros_reached", _INT, "sum", "Those of them with ∂L/∂w̃ ≠ 0"),
        Counter(
            "n_scale_gradients", _INT, "sum", "Scales of one side (W_p, W_n) that have a gradient"
        ),
        Counter(
            "n_scale_gradients_turned", _INT, "sum", "Those of them whose gradient is the opposite"
        ),
    ],
)


@ESTIMATOR.metric(
    unit="1", bad="low", source="straight-through: 1; LSQ above 0.9, TTQ 0.4 to 0.5 (measured)"
)
def estimator_cosine() -> pl.Expr:
    """Cosine between ∂L/∂w̃ and ∂L/∂w_t: 1 straight through, below 0 uphill.

    A penalty on the latent weights is a part of ∂L/∂w̃, and lowers it.
    """
    length = (pl.col("sum_sq_gradient_quantized") * pl.col("sum_sq_gradient_latent")).sqrt()
    return pl.when(length > 0).then(pl.col("sum_dot_gradients") / length)


@ESTIMATOR.metric(
    unit="fraction", bad="low", source="straight-through: 1. Tequila (2025) on what is trapped"
)
def deadzone_reached_frac() -> pl.Expr:
    """Share of the weights at 0 whose latent weight gets a gradient, where the zero itself has one.

    It is often said that weights in the deadzone get none. Under a straight-through estimator they
    get as much as the others (measured: 0.00159 on average against 0.00163); where this is near 0
    the estimator does cut them off, and they cannot leave the deadzone.
    """
    graded = pl.col("n_zeros_graded")
    return pl.when(graded > 0).then(pl.col("n_zeros_reached") / graded)


@ESTIMATOR.metric(unit="fraction", bad="high", source="TTQ: ∂L/∂W_n = −Σ ∂L/∂w_t over w_t < 0")
def scale_gradient_turned_frac() -> pl.Expr:
    """Share of the scales of one side whose gradient has the wrong sign: they climb.

    ∂L/∂W_p is the sum of ∂L/∂w_t over the positive weights, ∂L/∂W_n minus that over the negative
    ones; TTQ's own equation lacks the minus, and so does code that follows it.
    """
    n = pl.col("n_scale_gradients")
    return pl.when(n > 0).then(pl.col("n_scale_gradients_turned") / n)
