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
        Counter("n_rows", _INT, "last", "Outputs: rows, or channels"),
        Counter("n_dead_rows", _INT, "last", "Outputs all of whose weights are 0"),
        Counter("n_columns", _INT, "last", "Inputs: columns, or channels"),
        Counter("n_dead_columns", _INT, "last", "Inputs all of whose weights are 0"),
        Counter("delta", _F64, "last", "Threshold Δ: largest |latent weight| that became 0"),
        Counter("n_nonfinite_weights", _INT, "last", "Latent weights that are NaN or infinite"),
        Counter("n_scales", _INT, "last", "Scales that are parameters of the quantizer (W_p, s …)"),
        Counter("n_scales_not_positive", _INT, "last", "Those of them that are 0, below, or NaN"),
        Counter(
            "n_learnable_scales", _INT, "last", "Trainable parameters of the quantizer, all of them"
        ),
        Counter(
            "n_scales_without_gradient",
            _INT,
            "last",
            "Those without gradient, or of exact zeros, though the layer has one",
        ),
        Counter(
            "scale_without_gradient_rows",
            _INT,
            "last",
            "Rows in a row for which one of them has been so, until now",
        ),
        Counter("is_first_layer", _INT, "last", "1 for the model's first layer with weights"),
        Counter("is_last_layer", _INT, "last", "1 for the model's last one"),
        Counter(
            "n_model_weights", _INT, "last", "Weights of all layers of the model; tied ones once"
        ),
        Counter("n_ternary_weights", _INT, "last", "Those of them in layers that are ternary now"),
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


@WEIGHTS.metric(unit="1", bad="outside", source="TTQ (Zhu et al. 2017)")
def scale_log_ratio() -> pl.Expr:
    """ln(W_p / W_n): 0 for equal scales of the two sides, beyond ±ln 3 = ±1.1 out of balance."""
    return (scale_positive() / scale_negative()).log()


@WEIGHTS.metric(unit="1", bad="outside")
def weight_sign_imbalance() -> pl.Expr:
    """(n₊ − n₋) / (n₊ + n₋) of the occupied levels: ±1 is one-sided."""
    positive, negative = pl.col("n_weight_positive"), pl.col("n_weight_negative")
    return pl.when(positive + negative > 0).then((positive - negative) / (positive + negative))


@WEIGHTS.metric(unit="fraction", bad="high", source="the reason for TerViT's channel-wise Δ")
def dead_row_frac() -> pl.Expr:
    """Share of the outputs (rows, or channels) all of whose weights are 0: they tell nothing."""
    return pl.col("n_dead_rows") / pl.col("n_rows")


@WEIGHTS.metric(unit="fraction", bad="high")
def dead_column_frac() -> pl.Expr:
    """Share of the inputs (columns, or channels) all of whose weights are 0: nobody hears them."""
    return pl.col("n_dead_columns") / pl.col("n_columns")


@WEIGHTS.metric(unit="fraction", bad="high")
def scale_without_gradient_frac() -> pl.Expr:
    """Share of the quantizer's trainable parameters that get no gradient, or one of exact zeros."""
    return pl.col("n_scales_without_gradient") / pl.col("n_learnable_scales")


@WEIGHTS.metric(unit="fraction", source="precision audit; biases and norms are not counted")
def model_ternary_frac() -> pl.Expr:
    """Share of all weights of the model that are in ternary layers; the same for each of them.

    A layer that is not called in this step counts as it was when it was called last.
    """
    return pl.col("n_ternary_weights") / pl.col("n_model_weights")
