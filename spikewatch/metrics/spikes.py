"""What a spiking layer sends out: rates, dead and saturated neurons, sign, amplitude, entropy.

Notation: spikes s of shape [T, B, *neuron]; a neuron is one index of `*neuron`; an *observation*
of a neuron is one (time step, sample) slot. An event is s ≠ 0: not s = 1, because spikes may be
graded, ternary or scaled by an amplitude, and not Σ s, because ±1 cancel: `spikes.mean()` is 0 for
a busy layer. Nor does one mean over a layer tell of its neurons: `(spikes.mean() < 0.001).mean()`
is 0 or 1, and 0 for a layer of which nine tenths are dead.
"""

import polars as pl

from .declare import Counter, Table
from .formulas import entropy_bits


# A silent neuron has rate < 0.001 with 95 % confidence once it was observed this often:
# (1 − 0.001)^n ≤ 0.05 (Hanley & Lippman-Hand 1983, "rule of three": 3/n).
DEAD_EVIDENCE_OBS = 2995
# The time steps of one sample are alike, above all where the input is the same in each of them: a
# neuron that is for one class only is silent in all of them. So of a long sample no more than this
# counts, and the evidence comes from 100 samples or more.
MOST_OBS_A_SAMPLE = 30
# At or above this share of slots with an event a neuron carries no information in its timing.
SATURATED_RATE_FRAC = 0.99

_INT, _F64 = pl.Int64(), pl.Float64()

SPIKES = Table(
    "spikes",
    "Events at the output of a spiking layer",
    [
        Counter(
            "n_obs",
            _INT,
            "sum",
            "Observations per neuron: time steps × samples, of calls with finite output",
        ),
        Counter("n_neurons", _INT, "last", "Neurons of the layer"),
        Counter("n_spikes", _INT, "sum", "Events (s ≠ 0) in them, all neurons"),
        Counter("n_positive", _INT, "sum", "Events with s > 0"),
        Counter("sum_abs_spike", _F64, "sum", "Σ|s| over the events"),
        Counter(
            "n_nonfinite_spikes", _INT, "sum", "Forward calls whose output held NaN or infinity"
        ),
        Counter(
            "is_graded",
            _INT,
            "last",
            "1 where a spike may have any size and sign, as it stands for a value (Σ-Δ neurons)",
        ),
        Counter(
            "is_multilevel",
            _INT,
            "last",
            "1 where spikes of one neuron have had several sizes (integers, parts of a threshold)",
        ),
        Counter(
            "evidence_n_obs",
            _INT,
            "last",
            "Observations per neuron behind `n_dead` and `n_saturated`",
        ),
        Counter(
            "n_dead",
            _INT,
            "last",
            "Neurons without an event in the shortest run of latest observed steps that gives "
            f"at least {DEAD_EVIDENCE_OBS} observations, of which a sample gives at most "
            f"{MOST_OBS_A_SAMPLE}; NULL until there were so many",
        ),
        Counter(
            "n_saturated",
            _INT,
            "last",
            f"Neurons at or above rate {SATURATED_RATE_FRAC} in each of those steps",
        ),
        Counter(
            "n_never_fired",
            _INT,
            "last",
            "Neurons without an event since the start; NULL like it",
        ),
        Counter(
            "n_channels",
            _INT,
            "last",
            "Channels, where neurons are [channel, height, width], or have two axes, of which one "
            "is as long as an output of a layer with weights",
        ),
        Counter("n_dead_channels", _INT, "last", "Channels of which every neuron is dead"),
        Counter(
            "silent",
            pl.Binary(),
            "last",
            "Bitmap, first neuron first: silent in all of the latest `silent_n_obs` "
            "observations. On rows that end such a window. `bit_and` merges windows and ranks",
        ),
        Counter("silent_n_obs", _INT, "last", "Observations per neuron behind `silent`"),
    ],
)


def _slots() -> pl.Expr:
    return pl.col("n_obs") * pl.col("n_neurons")


@SPIKES.metric(unit="fraction", bad="outside", source="Zenke & Vogels 2021, activity regulariser")
def mfr() -> pl.Expr:
    """Mean firing rate: share of (neuron, time step, sample) slots with an event, of any sign."""
    return pl.col("n_spikes") / _slots()


@SPIKES.metric(unit="fraction")
def positive_rate_frac() -> pl.Expr:
    """Share of slots with a positive event."""
    return pl.col("n_positive") / _slots()


@SPIKES.metric(unit="fraction")
def negative_rate_frac() -> pl.Expr:
    """Share of slots with a negative event (ternary spikes)."""
    return (pl.col("n_spikes") - pl.col("n_positive")) / _slots()


@SPIKES.metric(unit="fraction", bad="high", source="Hanley & Lippman-Hand 1983 (evidence)")
def dead_frac() -> pl.Expr:
    """Share of neurons that are dead: no event in at least 2995 latest observations of each.

    NULL until there is that much evidence: with 32 observations half of a healthy layer with
    log-normal rates would look dead.
    """
    return pl.col("n_dead") / pl.col("n_neurons")


@SPIKES.metric(unit="fraction", bad="high")
def never_fired_frac() -> pl.Expr:
    """Share of neurons without any event since the run began; NULL until there is evidence."""
    return pl.col("n_never_fired") / pl.col("n_neurons")


@SPIKES.metric(unit="fraction", bad="high")
def dead_channel_frac() -> pl.Expr:
    """Share of channels of which every neuron is dead. NULL where neurons have no channels."""
    return pl.col("n_dead_channels") / pl.col("n_channels")


@SPIKES.metric(unit="1", bad="outside")
def sign_imbalance() -> pl.Expr:
    """(r₊ − r₋) / (r₊ + r₋) of the rates of positive and negative events: ±1 is one-sided."""
    negative = pl.col("n_spikes") - pl.col("n_positive")
    return pl.when(pl.col("n_spikes") > 0).then(
        (pl.col("n_positive") - negative) / pl.col("n_spikes")
    )


@SPIKES.metric(unit="fraction", bad="high")
def saturated_frac() -> pl.Expr:
    """Share of neurons that fire in at least 99 % of the slots of every latest step."""
    return pl.col("n_saturated") / pl.col("n_neurons")


@SPIKES.metric(unit="1", bad="outside")
def spike_amplitude() -> pl.Expr:
    """Mean |s| of an event: 1 for binary spikes, α for {−α, 0, +α}."""
    return pl.when(pl.col("n_spikes") > 0).then(pl.col("sum_abs_spike") / pl.col("n_spikes"))


@SPIKES.metric(unit="bit", bad="low", source="Shannon entropy; log2 3 only at equal shares")
def spike_entropy_bits() -> pl.Expr:
    """Entropy of a slot over {−, 0, +}: 0 when all slots are alike, at most log2 3 = 1.585."""
    positive = pl.col("n_positive") / _slots()
    negative = (pl.col("n_spikes") - pl.col("n_positive")) / _slots()
    return entropy_bits(positive, negative, 1 - positive - negative)
