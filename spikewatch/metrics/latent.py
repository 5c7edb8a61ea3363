"""Latent weights: how well their ternary levels stand for them, and how they meet the threshold Δ.

Notation: w̃ the latent weight, t the quantized one, Δ the largest |w̃| that became 0 (of the row or
group, where each has a scale of its own). Read of all weights, or of a fixed sample of 65 536 of
them (`n_latent`; fewer where `attach(track_weights=…)` says so): the error of an SQNR is then some
0.02 dB, that of a share at most 0.002.

Where the zeros are not those below a threshold (N:M sparsity), what is measured in units of Δ is
NULL.

Δ = 0.7·E|w̃| is often called the optimum for Gaussian weights. That is 0.767 (0.667 for uniform, 1.0
for Laplacian ones); 0.7 loses 0.03 dB for Gaussian, 0.3 dB for Laplacian weights (measured).
"""

import polars as pl

from .declare import Counter, Table


# Edges of |w̃|/Δ: inside, at and outside of the boundary.
BOUNDARY = (0.7, 0.9, 1.1, 1.3)
# Straight-through estimators commonly pass no gradient to weights beyond it (STTN, BinaryConnect).
CLIP = 1.0
# Of the way from w̃ to the multiplied weight, so much has to lie towards ternary ones: of softened
# steps 0.7 to 0.95 does, of 2-bit weights 0.67, of 8-bit ones and of noise nothing (measured).
LEAST_EXPLAINED = 0.7
_LEAST_AROUND = 200  # fewer weights say nothing of a density: its error would be above 10 %
_LEAST_NOISE = 1e-12  # of the signal: 120 dB, rounding

_INT, _F64 = pl.Int64(), pl.Float64()

LATENT = Table(
    "latent",
    "Latent weights of a ternary layer",
    [
        Counter("n_latent", _INT, "last", "Latent weights behind the row: all, or a fixed sample"),
        Counter("n_latent_zero", _INT, "last", "Those of them whose quantized weight is 0"),
        Counter("sum_sq_latent", _F64, "last", "Σw̃²"),
        Counter("sum_latent_quantized", _F64, "last", "Σw̃t"),
        Counter("sum_sq_quantized", _F64, "last", "Σt²"),
        Counter(
            "unscaled", _INT, "last", "1 where the levels are −1, 0, +1: α is applied elsewhere"
        ),
        Counter("sum_abs_latent", _F64, "last", "Σ|w̃|"),
        Counter("first_mean_abs_latent", _F64, "last", "Mean |w̃| at the first look"),
        Counter("n_clipped", _INT, "last", f"Weights with |w̃| ≥ {CLIP:g}"),
        Counter("n_deadzone", _INT, "last", "Weights with |w̃| ≤ Δ"),
        Counter("n_boundary_inside", _INT, "last", "Weights with 0.7 ≤ |w̃|/Δ < 0.9"),
        Counter("n_boundary", _INT, "last", "Weights with 0.9 ≤ |w̃|/Δ < 1.1"),
        Counter("n_boundary_outside", _INT, "last", "Weights with 1.1 ≤ |w̃|/Δ < 1.3"),
        Counter("median_boundary_distance", _F64, "last", "Median of | |w̃| − Δ | / Δ"),
        Counter("median_update_ratio", _F64, "last", "Median |change of w̃ in this update| / Δ"),
        Counter("annealing_lambda", _F64, "last", "λ of the layer, or λ̂ by projection"),
        Counter("annealing_explained", _F64, "last", "Share of ‖w − w̃‖² that λ̂ explains"),
        Counter(
            "annealing_clock",
            _F64,
            "last",
            "What moves on with it: λ, the layer's temperature, or λ̂",
        ),
    ],
)


def _has_threshold() -> pl.Expr:
    """Whether the zeros are those below Δ, up to ties."""
    zeros, inside = pl.col("n_latent_zero"), pl.col("n_deadzone")
    return (zeros > 0) & (inside <= 1.02 * zeros + 2)


def _fitted_noise() -> pl.Expr:
    """Σ(w̃ − α*t)² with the least-squares scale α* = Σw̃t / Σt²."""
    cross, square = pl.col("sum_latent_quantized"), pl.col("sum_sq_quantized")
    explained = pl.when(square > 0).then(cross.pow(2) / square).otherwise(0.0 * cross)
    return pl.col("sum_sq_latent") - explained


def _db(noise: pl.Expr) -> pl.Expr:
    signal = pl.col("sum_sq_latent")
    least = _LEAST_NOISE * signal
    return pl.when(signal > 0).then(
        10 * (signal / pl.when(noise > least).then(noise).otherwise(least)).log(10)
    )


@LATENT.metric(
    unit="dB",
    bad="low",
    source="TWN's objective; Gaussian weights: at best 7.2, TWN 7.2, BitNet absmean 5.8 (measured)",
)
def sqnr_db() -> pl.Expr:
    """Signal to quantization noise, 10 log₁₀(Σw̃² / Σ(w̃ − t)²).

    Where the levels are −1, 0, +1 and the scale is applied to the output, t is taken times the
    scale α* that fits best.
    """
    raw = pl.col("sum_sq_latent") - 2 * pl.col("sum_latent_quantized") + pl.col("sum_sq_quantized")
    return _db(pl.when(pl.col("unscaled") == 1).then(_fitted_noise()).otherwise(raw))


@LATENT.metric(unit="dB", bad="low", source="TWN's objective, with the best scale")
def sqnr_fitted_db() -> pl.Expr:
    """The same with the best scale α* in any case: what these zeros and signs could give.

    A scale that learns (LSQ, TTQ) serves the loss, not the latent weights: this is the fairer
    figure there. α* is one for the layer.
    """
    return _db(_fitted_noise())


@LATENT.metric(unit="fraction", source="Tequila (2025)")
def deadzone_frac() -> pl.Expr:
    """Share of latent weights within [−Δ, Δ]: the zeros, if a threshold makes them."""
    return pl.when(pl.col("n_latent_zero") > 0).then(pl.col("n_deadzone") / pl.col("n_latent"))


@LATENT.metric(unit="1", bad="high", source="deadzone trapping: Tequila (2025); healthy about 1")
def boundary_pileup() -> pl.Expr:
    """Density of |w̃| at Δ over the mean of those just inside and outside: above 1.5 they pile up.

    NULL with less than 200 weights around Δ.
    """
    around = pl.col("n_boundary_inside") + pl.col("n_boundary_outside")
    enough = _has_threshold() & (around >= _LEAST_AROUND)
    return pl.when(enough).then(pl.col("n_boundary") / (around / 2))


@LATENT.metric(unit="1")
def boundary_distance() -> pl.Expr:
    """Median distance of the latent weights to the threshold, | |w̃| − Δ | / Δ."""
    return pl.when(_has_threshold()).then(pl.col("median_boundary_distance"))


@LATENT.metric(
    unit="1", bad="outside", source="0.04 down to 1e-4 in trainings that learn (measured)"
)
def update_ratio() -> pl.Expr:
    """Median change of a latent weight in this one update, over Δ. Above 0.05 it is mostly noise.

    `boundary_distance / update_ratio` is the number of straight updates to the threshold.
    """
    return pl.when(_has_threshold()).then(pl.col("median_update_ratio"))


@LATENT.metric(unit="1", bad="outside", source="E|w̃| against the first look")
def latent_drift() -> pl.Expr:
    """Mean |w̃| over that at the first look."""
    return pl.col("sum_abs_latent") / pl.col("n_latent") / pl.col("first_mean_abs_latent")


@LATENT.metric(unit="fraction", bad="high", source="clamp of STTN and BinaryConnect")
def clipped_frac() -> pl.Expr:
    """Share of latent weights with |w̃| ≥ 1, where many straight-through estimators end."""
    return pl.col("n_clipped") / pl.col("n_latent")


@LATENT.metric(unit="1", bad="none", source="λ of BitNet's warm-up; projection on q − w̃")
def annealing() -> pl.Expr:
    """Stage of annealed weights, 0 in full precision to 1 where they are ternary.

    The layer's own λ, or λ̂ = ⟨w − w̃, q − w̃⟩ / ‖q − w̃‖² for the ternary weights q that explain w
    best. It equals λ for w = w̃ + λ(q − w̃), and stands for the stage where the way is another one
    (`annealing_explained` below 1). Where no straight way explains w (`annealing_explained` NULL),
    it is how much nearer to ternary weights w is than w̃.
    """
    return pl.col("annealing_lambda")
