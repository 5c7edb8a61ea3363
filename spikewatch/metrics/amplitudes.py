"""Amplitudes a of spikes {−a, 0, +a}, and scales α.

α is the threshold factor of a ternary spike (θ = α·mean|x|), or the scale of ternary weights
{−α, 0, +α}. A channel is one element of the parameter (one for a layer-wise amplitude, C for a
channel-wise one), or one output row of the weights. Parameters of spiking layers are read when a
step ends, after the optimizer has moved them; scales of weights, as the forward pass made them.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import polars as pl

from .declare import Counter, Table


# The seed's healthy range of an amplitude.
AMPLITUDE_RANGE = (0.3, 3.0)

# The clamp of α in adaptive-threshold ternary neurons, up to rounding.
ALPHA_CLAMP = (0.01 * (1 + 1e-5), 10.0 * (1 - 1e-5))
# Amplitudes of two layers are one parameter where none differs by more.
_TIED = 1e-7

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
        Counter("n_trainable_amplitudes", _INT, "last", "Those of them that are trained"),
        Counter("n_siblings", _INT, "last", "Layers beside it with as many trained amplitudes"),
        Counter("n_tied_siblings", _INT, "last", "Those whose amplitudes are the same as its own"),
        Counter("n_alphas", _INT, "last", "Channels with an α"),
        Counter("sum_alpha", _F64, "last", "Σ of the α"),
        Counter("alpha_min", _F64, "min", "Smallest α"),
        Counter("alpha_max", _F64, "max", "Largest α"),
        Counter(
            "n_alphas_pinned",
            _INT,
            "last",
            "α ≤ 0.01 or ≥ 10, where thresholds are commonly clamped; NULL for scales of weights",
        ),
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


@AMPLITUDES.metric(unit="1", bad="high")
def amplitude_range() -> pl.Expr:
    """Largest less smallest amplitude of the layer."""
    return pl.col("amplitude_max") - pl.col("amplitude_min")


@AMPLITUDES.metric(unit="fraction", bad="high", source="K and V that start alike and stay alike")
def tied_sibling_frac() -> pl.Expr:
    """Share of the layers beside it (K and V of one attention) whose amplitudes are its own.

    NULL without a layer beside it that has as many trained amplitudes.
    """
    return pl.when(pl.col("n_siblings") > 0).then(pl.col("n_tied_siblings") / pl.col("n_siblings"))


@AMPLITUDES.metric(unit="fraction", bad="high", source="clamp [0.01, 10.0]")
def alpha_pinned_frac() -> pl.Expr:
    """Share of the threshold factors α that sit at their clamp, where they get no gradient."""
    return pl.col("n_alphas_pinned") / pl.col("n_alphas")


def add_siblings(rows: Sequence[dict[str, Any]]) -> None:
    """Tell the rows of one step which layers beside them have the same amplitudes.

    Siblings are layers whose names differ in one part that is no number (`attention.key.spike` and
    `attention.value.spike`, but not block 0 and block 1), with as many trained amplitudes. They are
    tied where number, sum, sum of squares, least and greatest amplitude agree to 1e-7: amplitudes
    that are the same, or the same ones in another order.

    Args:
        rows: Rows of `amplitudes` of one step; changed in place.
    """
    trained = [r for r in rows if r.get("n_trainable_amplitudes")]
    for row in trained:
        row["n_siblings"] = row["n_tied_siblings"] = 0
    for a, b in combinations(trained, 2):
        if a["n_amplitudes"] == b["n_amplitudes"] and _are_siblings(a["layer"], b["layer"]):
            for row in (a, b):
                row["n_siblings"] += 1
                row["n_tied_siblings"] += _are_tied(a, b)


def _are_siblings(one: str, other: str) -> bool:
    parts = [p.split(".") for p in (one, other)]
    if len(parts[0]) != len(parts[1]):
        return False
    differing = [(p, q) for p, q in zip(*parts, strict=True) if p != q]
    return len(differing) == 1 and not any(p.isdigit() for p in differing[0])


def _are_tied(a: dict[str, Any], b: dict[str, Any]) -> bool:
    n = a["n_amplitudes"]
    scale = max(1.0, abs(a["amplitude_max"]))
    return (
        abs(a["amplitude_min"] - b["amplitude_min"]) <= _TIED * scale
        and abs(a["amplitude_max"] - b["amplitude_max"]) <= _TIED * scale
        and abs(a["sum_amplitude"] - b["sum_amplitude"]) <= _TIED * scale * n
        and abs(a["sum_sq_amplitude"] - b["sum_sq_amplitude"]) <= 2 * _TIED * scale**2 * n
    )
