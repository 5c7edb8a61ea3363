"""Ternary weights: how the quantized weights spread over {−1, 0, +1}.

The *quantized* weight is what the layer multiplies with; the *latent* weight is the full-precision
copy that the optimizer moves.
"""

import polars as pl

from .declare import Counter, Table
from .formulas import entropy_bits


_INT, _F64 = pl.Int64(), pl.Float64()

WEIGHTS = Table(
    "weights",
    "Ternary weights of a layer",
    [
        Counter("n_weights", _INT, "last", "Quantized weights of the layer"),
        Counter("n_weight_negative", _INT, "last", "Weights at −1 (times the scale)"),
        Counter("n_weight_zero", _INT, "last", "Weights at 0"),
        Counter("n_weight_positive", _INT, "last", "Weights at +1 (times the scale)"),
        Counter("sum_scale_positive", _F64, "last", "Σ of the positive quantized weights"),
        Counter("sum_scale_negative", _F64, "last", "Σ|·| of the negative quantized weights"),
        Counter("delta", _F64, "last", "Threshold Δ: largest |latent weight| that became 0"),
        Counter("n_nonfinite_weights", _INT, "last", "Latent weights that are NaN or infinite"),
    ],
)


def _share(counter: str) -> pl.Expr:
    return pl.col(counter) / pl.col("n_weights")


@WEIGHTS.metric(unit="fraction")
def weight_negative_frac() -> pl.Expr:
    """Share of weights at −1."""
    return _share("n_weight_negative")


@WEIGHTS.metric(unit="fraction", bad="high", source="TTQ: best networks have 30–50 % zeros")
def weight_zero_frac() -> pl.Expr:
    """Share of weights at 0. Near 1 the layer has collapsed."""
    return _share("n_weight_zero")


@WEIGHTS.metric(unit="fraction")
def weight_positive_frac() -> pl.Expr:
    """Share of weights at +1."""
    return _share("n_weight_positive")


@WEIGHTS.metric(
    unit="bit", bad="low", source="Gaussian weights: BitNet absmean 1.58, TWN 1.56, TTQ 1.52"
)
def weight_entropy_bits() -> pl.Expr:
    """Entropy of a weight over {−1, 0, +1}: at most log2 3 = 1.585, near 0 when collapsed."""
    return entropy_bits(
        _share("n_weight_negative"), _share("n_weight_zero"), _share("n_weight_positive")
    )


@WEIGHTS.metric(unit="1")
def scale_positive() -> pl.Expr:
    """Scale of the positive level (α, or W_p of TTQ): mean of the positive quantized weights."""
    return pl.when(pl.col("n_weight_positive") > 0).then(
        pl.col("sum_scale_positive") / pl.col("n_weight_positive")
    )


@WEIGHTS.metric(unit="1")
def scale_negative() -> pl.Expr:
    """Scale of the negative level (α, or W_n of TTQ): mean |·| of the negative ones."""
    return pl.when(pl.col("n_weight_negative") > 0).then(
        pl.col("sum_scale_negative") / pl.col("n_weight_negative")
    )
