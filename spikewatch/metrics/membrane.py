"""The membrane potential u of a spiking layer in thresholds: z = (u − θ)/(θ − v_reset).

z = −1 is the potential that a neuron resets to, z = 0 the threshold. So z ≥ 0 is u ≥ θ whatever
their signs: thresholds in millivolt are negative. Where v_reset is unknown, or not below θ, |θ|
stands for θ − v_reset: with a positive θ, z = −1 is then a potential of 0. A threshold that is 0,
or not finite, as that of a readout which is never to fire, gives no figures.

Where the surrogate's node in the autograd graph shows it, u is the potential that was compared with
θ, before the reset; else it is what the library keeps after the step. `n_membrane_pre_reset` says
for how many readings it was the former: the two differ at exactly the neurons that fired.

The potential differs from one time step to the next. So it is read at up to four of them, spread
over the sequence (at all of them in the first step with the dear readings), at 1024 evenly spread
elements each: a mean has a standard error of about σ/64, a share p one of √(p(1−p)/4096), at most
0.008.
"""

from itertools import pairwise

import polars as pl

from .declare import Counter, Table


# Edges of the bins in z by which windows are compared; the outer bins are open.
Z_EDGES = (-1.5, -1.0, -0.5, -0.25, 0.0, 0.25, 1.0)
# |z + 1| beyond so many thresholds: the amplitude runs away.
RUNAWAY_THRESHOLDS = 10
Z_BINS = tuple(f"n_z_bin_{k}" for k in range(len(Z_EDGES) + 1))
REFERENCE_BINS = tuple(f"reference_{name}" for name in Z_BINS)

_INT, _F64 = pl.Int64(), pl.Float64()


def _bin_meaning(k: int) -> str:
    edges = (float("-inf"), *Z_EDGES, float("inf"))
    low, high = list(pairwise(edges))[k]
    return f"Potentials with z in [{low:g}, {high:g})"


MEMBRANE = Table(
    "membrane",
    "Membrane potential of a spiking layer",
    [
        Counter("n_membrane", _INT, "sum", "Potentials that were read, and finite"),
        Counter("n_membrane_nonfinite", _INT, "sum", "Potentials that were NaN or infinite"),
        Counter("n_membrane_pre_reset", _INT, "sum", "Those read before the reset"),
        Counter("sum_z", _F64, "sum", "Σz"),
        Counter("sum_sq_z", _F64, "sum", "Σz²"),
        Counter("n_above_threshold", _INT, "sum", "Potentials at or above the threshold"),
        Counter("n_runaway", _INT, "sum", f"Potentials with |z + 1| > {RUNAWAY_THRESHOLDS}"),
        Counter("n_quantization", _INT, "sum", "Potentials with their spike beside them"),
        Counter("sum_sq_quantization", _F64, "sum", "Σ(z + 1 − s)² over those"),
        *(Counter(name, _INT, "sum", _bin_meaning(k)) for k, name in enumerate(Z_BINS)),
        Counter("reference_n_membrane", _INT, "last", "Potentials of the reference window"),
        Counter("reference_sum_z", _F64, "last", "Σz over them"),
        Counter("reference_sum_sq_z", _F64, "last", "Σz² over them"),
        *(
            Counter(name, _INT, "last", f"{_bin_meaning(k)}, of the reference window")
            for k, name in enumerate(REFERENCE_BINS)
        ),
    ],
)


def _mean(prefix: str = "") -> pl.Expr:
    return pl.col(f"{prefix}sum_z") / pl.col(f"{prefix}n_membrane")


def _variance(prefix: str = "") -> pl.Expr:
    square = pl.col(f"{prefix}sum_sq_z") / pl.col(f"{prefix}n_membrane")
    return (square - _mean(prefix).pow(2)).clip(lower_bound=0)


@MEMBRANE.metric(unit="1", bad="outside", source="MPBN; IM-Loss (mean potential near θ)")
def membrane_mean() -> pl.Expr:
    """Mean of z = (u − θ)/(θ − v_reset): 0 at the threshold, −1 at the reset potential."""
    return _mean()


@MEMBRANE.metric(unit="1", bad="outside")
def membrane_std() -> pl.Expr:
    """Standard deviation of the membrane potential, in thresholds."""
    return _variance().sqrt()


@MEMBRANE.metric(unit="fraction", bad="outside")
def above_threshold_frac() -> pl.Expr:
    """Share of membrane potentials at or above the threshold, u ≥ θ."""
    return pl.col("n_above_threshold") / pl.col("n_membrane")


@MEMBRANE.metric(unit="fraction", bad="high")
def membrane_runaway_frac() -> pl.Expr:
    """Share of membrane potentials beyond ten thresholds, of either sign: |z + 1| > 10."""
    return pl.col("n_runaway") / pl.col("n_membrane")


@MEMBRANE.metric(unit="1", bad="high", source="RMP-Loss 2023 (idea)")
def membrane_quantization_error() -> pl.Expr:
    """Mean of (z + 1 − s)²: how much a spike loses of the potential that it stands for."""
    return pl.col("sum_sq_quantization") / pl.col("n_quantization")


@MEMBRANE.metric(unit="1", bad="outside")
def membrane_shift() -> pl.Expr:
    """How far the mean potential has moved from the reference window's, in its deviations."""
    deviation = _variance("reference_").sqrt()
    return pl.when(deviation > 0).then((_mean() - _mean("reference_")) / deviation)


@MEMBRANE.metric(unit="1", bad="outside")
def membrane_variance_ratio() -> pl.Expr:
    """Variance of the potential over that of the reference window."""
    reference = _variance("reference_")
    return pl.when(reference > 0).then(_variance() / reference)


@MEMBRANE.metric(unit="1", bad="high", source="population stability index; > 0.25 is a shift")
def membrane_psi() -> pl.Expr:
    """Population stability index of z against the reference window: Σ(p − q) ln(p/q).

    Over eight bins, with half a count added to each, so that an empty bin is no infinity.
    """
    # ln(p/q) has the same factor ln(N_then/N_now) in every bin. It drops out, since p and q both
    # add up to 1: what is left takes a fraction of the operations.
    half = len(Z_BINS) / 2
    now = pl.sum_horizontal(Z_BINS, ignore_nulls=False) + half
    then = pl.sum_horizontal(REFERENCE_BINS, ignore_nulls=False) + half
    pairs = [
        (pl.col(c) + 0.5, pl.col(r) + 0.5) for c, r in zip(Z_BINS, REFERENCE_BINS, strict=True)
    ]
    logs = [(c / r).log() for c, r in pairs]
    by_now = [c * log for (c, _), log in zip(pairs, logs, strict=True)]
    by_then = [r * log for (_, r), log in zip(pairs, logs, strict=True)]
    return (
        pl.sum_horizontal(by_now, ignore_nulls=False) / now
        - pl.sum_horizontal(by_then, ignore_nulls=False) / then
    )
