"""How ternary weights change their level from one update to the next.

Followed are all weights of a layer, or a fixed sample of them (`n_tracked`; the argument
`track_weights` of `attach()` says of how many): a share p then has a standard error of
√(p(1−p)/n_tracked).

A look every N steps sees two levels, not the way between them. A weight that left its level and
came back is missed, so every count of flips is a *lower bound* of what happened, the further below
it the larger N (`look_gap_steps`). Oscillations are seen in full where each step is observed; with
gaps each reversal that is seen is one that happened, but a weight that flips back at every step is
seen only by looks an odd number of steps apart. Rates over gaps of more than a few steps serve to
compare a layer with itself, not with published ones.

A vanishing gradient is no sign of a trapped weight: under a straight-through estimator the zeros
get as much of it as the others. What counts is whether zeros ever stop being zero.
"""

import polars as pl

from .declare import Counter, Table


# A zero is said to be retained after 500 to 1000 steps; two cohorts of zeros take turns.
COHORT_STEPS = 500
# A moving average of reversals with momentum 0.01 (Nagel et al. 2022) is above their 0.005 for 69
# updates after one reversal.
OSCILLATION_STEPS = 70
# No flip in so many weights × updates: a rate below 1e-6 with 95 % confidence (rule of three).
FROZEN_EVIDENCE_SLOTS = 3_000_000

_INT = pl.Int64()

TRANSITIONS = Table(
    "transitions",
    "Changes of ternary weights between looks",
    [
        Counter("n_tracked", _INT, "last", "Weights that are followed: all, or a fixed sample"),
        Counter("n_followed_of", _INT, "last", "Weights of the layer"),
        Counter("look_gap_steps", _INT, "max", "Steps since the look before"),
        Counter("n_flip_slots", _INT, "sum", "Weights followed × steps since the look before"),
        Counter("n_flips", _INT, "sum", "Weights whose level differs from that look's"),
        Counter(
            "n_reversals", _INT, "sum", "Those that changed against the direction of the last time"
        ),
        Counter("n_live_slots", _INT, "sum", "Like n_flip_slots, of weights that were not 0"),
        Counter("n_live_flips", _INT, "sum", "Like n_flips, of weights that were not 0"),
        Counter("n_never_flipped", _INT, "last", "Weights that no look has seen to change"),
        Counter(
            "slots_since_flip",
            _INT,
            "last",
            "Weights × steps since any of them was seen to change",
        ),
        Counter(
            "n_oscillating",
            _INT,
            "last",
            f"Weights with a reversal in the {OSCILLATION_STEPS} steps before the latest half of "
            "them ended; NULL until there were so many",
        ),
        Counter("n_cohort", _INT, "last", "Zeros when the cohort was taken"),
        Counter("n_retained", _INT, "last", "Those of them that were 0 at every look since"),
        Counter("cohort_age_steps", _INT, "last", "Steps since the cohort was taken"),
    ],
)


@TRANSITIONS.metric(
    unit="1", bad="outside", source="Bop (Helwegen et al. 2019); healthy 1e-4 to 6e-3 (measured)"
)
def flip_rate() -> pl.Expr:
    """Share of the weights that change their level, per update; a lower bound over gaps."""
    return pl.col("n_flips") / pl.col("n_flip_slots")


@TRANSITIONS.metric(unit="1", source="stratified sample without replacement, upper bound")
def flip_rate_error() -> pl.Expr:
    """Standard error of `flip_rate` from following a sample: 0 where all weights are followed."""
    n, share = pl.col("n_tracked"), pl.col("n_tracked") / pl.col("n_followed_of")
    p = (pl.col("n_flips") / n).clip(upper_bound=1)
    gap = pl.col("n_flip_slots") / n
    return (p * (1 - p) / n * (1 - share)).sqrt() / gap


@TRANSITIONS.metric(unit="1")
def live_flip_rate() -> pl.Expr:
    """The same, of the weights that were not 0."""
    slots = pl.col("n_live_slots")
    return pl.when(slots > 0).then(pl.col("n_live_flips") / slots)


@TRANSITIONS.metric(unit="fraction", bad="high")
def reversal_frac() -> pl.Expr:
    """Share of the changes that undo the direction of the weight's last one."""
    return pl.when(pl.col("n_flips") > 0).then(pl.col("n_reversals") / pl.col("n_flips"))


@TRANSITIONS.metric(unit="fraction", bad="high", source="Nagel et al. 2022, oscillation frequency")
def oscillating_frac() -> pl.Expr:
    """Share of the weights that turned back within the latest 70 updates.

    Where each step is observed, these are the weights whose frequency of reversals, as a moving
    average with momentum 0.01, is above 0.005, but for those (up to a quarter of them) whose
    average a burst of earlier reversals still holds up.
    """
    return pl.col("n_oscillating") / pl.col("n_tracked")


@TRANSITIONS.metric(unit="fraction", bad="high", source="deadzone trapping: Tequila (2025)")
def zero_retention_frac() -> pl.Expr:
    """Share of the zeros of some time ago (`cohort_age_steps`) that were 0 at every look since.

    0.16 after 1000 steps of noisy SGD, 0.6 to 0.9 in networks that have converged (measured).
    """
    return pl.when(pl.col("n_cohort") > 0).then(pl.col("n_retained") / pl.col("n_cohort"))


@TRANSITIONS.metric(unit="fraction", bad="high")
def never_flipped_frac() -> pl.Expr:
    """Share of the weights that no look has seen to change since the run began."""
    return pl.col("n_never_flipped") / pl.col("n_tracked")
