"""What decides when a neuron fires: threshold θ, the decay β of the membrane, and their learning.

β is the factor by which one time step multiplies the membrane potential, whatever the library calls
it: `beta`, 1 − 1/τ, exp(−Δt/τ), 1 − sigmoid(w).
"""

import polars as pl

from .declare import Counter, Table


# Below, a neuron forgets within a step; above, it remembers a thousand.
DECAY_EXTREMES = (0.01, 0.999)
# Where learnable thresholds are commonly clamped: beyond it nothing is learned.
THRESHOLD_CLAMP = (0.01 * (1 + 1e-5), 10.0 * (1 - 1e-5))

_INT, _F64 = pl.Int64(), pl.Float64()

DYNAMICS = Table(
    "dynamics",
    "Threshold, decay and trainable parameters of a spiking layer",
    [
        Counter(
            "n_thresholds",
            _INT,
            "last",
            "Thresholds: 1, or one a channel or neuron, but none of +∞ that is fixed",
        ),
        Counter("sum_threshold", _F64, "last", "Σθ"),
        Counter("threshold_min", _F64, "min", "Smallest θ"),
        Counter("threshold_max", _F64, "max", "Largest θ"),
        Counter(
            "n_thresholds_out",
            _INT,
            "last",
            "Those of 0, not finite, or learned and below both 0 and v_reset",
        ),
        Counter("n_thresholds_pinned", _INT, "last", "Learnable θ ≤ 0.01 or ≥ 10, common clamps"),
        Counter("n_decays", _INT, "last", "Decays: 1, or one a channel or neuron"),
        Counter("sum_decay", _F64, "last", "Σβ"),
        Counter("decay_min", _F64, "min", "Smallest β"),
        Counter("decay_max", _F64, "max", "Largest β"),
        Counter("n_decays_out", _INT, "last", "Decays outside (0, 1), or not finite"),
        Counter("n_decays_extreme", _INT, "last", f"Decays outside {list(DECAY_EXTREMES)}"),
        Counter("fwhm", _F64, "last", "Full width at half maximum of the surrogate gradient"),
        Counter("n_learnable", _INT, "last", "Trainable parameters of the neurons themselves"),
        Counter("n_without_gradient", _INT, "last", "Those without gradient, or of exact zeros"),
        Counter(
            "without_gradient_rows",
            _INT,
            "last",
            "Rows in a row for which one of them has been so, until now",
        ),
    ],
)


@DYNAMICS.metric(unit="1", bad="outside")
def threshold_mean() -> pl.Expr:
    """Mean threshold θ, in units of the membrane potential."""
    return pl.col("sum_threshold") / pl.col("n_thresholds")


@DYNAMICS.metric(unit="1", bad="outside", source="healthy within (0, 1)")
def decay_mean() -> pl.Expr:
    """Mean decay β of the membrane potential in one time step; 1 never forgets."""
    return pl.col("sum_decay") / pl.col("n_decays")


@DYNAMICS.metric(unit="fraction", bad="high")
def decay_extreme_frac() -> pl.Expr:
    """Share of decays below 0.01 or above 0.999: no memory, or no leak."""
    return pl.col("n_decays_extreme") / pl.col("n_decays")


@DYNAMICS.metric(unit="fraction", bad="high", source="clamps [0.01, 10]")
def threshold_pinned_frac() -> pl.Expr:
    """Share of learnable thresholds at a clamp, θ ≤ 0.01 or ≥ 10: they learn no more."""
    return pl.col("n_thresholds_pinned") / pl.col("n_thresholds")


@DYNAMICS.metric(unit="fraction", bad="high")
def without_gradient_frac() -> pl.Expr:
    """Share of the neurons' trainable parameters that get no gradient, or one of exact zeros."""
    return pl.col("n_without_gradient") / pl.col("n_learnable")


@DYNAMICS.metric(
    unit="1", bad="outside", source="FWHM: rectangle w, SuperSpike 2(√2 − 1)/k, ATan 4/(πα)"
)
def surrogate_width() -> pl.Expr:
    """Effective width of the surrogate gradient: the range of u where σ′ is above half its peak.

    In units of the membrane potential; measured at the surrogate itself, so also of one that is
    learned or annealed. One threshold's width, for ternary spikes.
    """
    return pl.col("fwhm")


@DYNAMICS.metric(unit="1", bad="low", source="SuperSpike: 0.83/k, of SpyTorch 0.008")
def surrogate_width_ratio() -> pl.Expr:
    """The same in units of the mean threshold θ; NULL where that is infinite."""
    theta = pl.col("sum_threshold") / pl.col("n_thresholds")
    return pl.when((theta > 0) & theta.is_finite()).then(pl.col("fwhm") / theta)
