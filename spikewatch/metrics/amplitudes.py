"""Amplitudes a of spikes {−a, 0, +a}, and scales α.

α is the threshold factor of a ternary spike (θ = α·mean|x|), or the scale of ternary weights
{−α, 0, +α}. A channel is one element of the parameter (one for a layer-wise amplitude, C for a
channel-wise one), or one output row of the weights.
"""

import polars as pl

from .declare import Counter, Table


# The seed's healthy range of an amplitude.
AMPLITUDE_RANGE = (0.3, 3.0)

_INT, _F64 = pl.Int64(), pl.Float64()

AMPLITUDES = Table(
    "amplitudes",
    "Amplitudes and scales α of a layer",
    [
        Counter("n_amplitudes", _INT, "last", "Channels with an amplitude"),
        Counter("sum_amplitude", _F64, "last", "Σ of the amplitudes"),
        Counter("sum_sq_amplitude", _F64, "last", "Σ of their squares"),
        Counter("amplitude_min", _F64, "min", "Smallest amplitude"),
        Counter("amplitude_max", _F64, "max", "Largest amplitude"),
        Counter(
            "n_amplitudes_out",
            _INT,
            "last",
            f"Channels with an amplitude outside {list(AMPLITUDE_RANGE)}, or not finite",
        ),
        Counter("n_alphas", _INT, "last", "Channels with an α"),
        Counter("sum_alpha", _F64, "last", "Σ of the α"),
        Counter("alpha_min", _F64, "min", "Smallest α"),
        Counter("alpha_max", _F64, "max", "Largest α"),
    ],
)


@AMPLITUDES.metric(unit="1", bad="outside", source="healthy range [0.3, 3.0]")
def amplitude_mean() -> pl.Expr:
    """Mean amplitude over the layer's channels."""
    return pl.col("sum_amplitude") / pl.col("n_amplitudes")


@AMPLITUDES.metric(unit="fraction", bad="high", source="healthy range [0.3, 3.0]")
def amplitude_out_frac() -> pl.Expr:
    """Share of channels whose amplitude is outside [0.3, 3.0]."""
    return pl.col("n_amplitudes_out") / pl.col("n_amplitudes")


@AMPLITUDES.metric(unit="1", bad="outside")
def amplitude_spread() -> pl.Expr:
    """Standard deviation over |mean| of the channels' amplitudes. NULL for a single channel.

    Above 1 the channels run apart; at 0, long after the start, they are tied together, or learn
    nothing.
    """
    n = pl.col("n_amplitudes")
    mean = pl.col("sum_amplitude") / n
    variance = (pl.col("sum_sq_amplitude") / n - mean.pow(2)).clip(lower_bound=0)
    return pl.when((n > 1) & (mean != 0)).then(variance.sqrt() / mean.abs())


@AMPLITUDES.metric(unit="1", bad="outside", source="clamp [0.01, 10.0]")
def alpha_mean() -> pl.Expr:
    """Mean α over the layer's channels."""
    return pl.col("sum_alpha") / pl.col("n_alphas")
