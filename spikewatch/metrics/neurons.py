"""The firing rate of each neuron, at a slower pace, and how the rates are distributed.

A row holds how often each neuron fired in a window of at least 2995 observations. Lists of windows
and of ranks add up, element by element. Of large layers every `neuron_stride`-th neuron is kept, at
most 4096. Where neurons are [channel, height, width], `neuron_stride` 1 and `neurons_per_channel`
known, a channel's rate is

    SELECT list_sum(neuron_counts[(c - 1) * neurons_per_channel + 1 : c * neurons_per_channel])
           / (n_neuron_obs * neurons_per_channel) FROM neurons

In the cortex rates are log-normal over two to three decades (Buzsáki & Mizuseki 2014): a law of
biology, not a demand on a trained network. What these figures are for is to see a layer split into
two kinds of neurons, or a few of them take over.
"""

import polars as pl

from .declare import Counter, Table


# Fewer firing neurons tell nothing of a distribution.
MIN_FIRING_NEURONS = 20

_INT = pl.Int64()

NEURONS = Table(
    "neurons",
    "Firing of each neuron, over windows",
    [
        Counter("n_neuron_obs", _INT, "sum", "Observations per neuron in the window"),
        Counter("neuron_stride", _INT, "last", "Every so many neurons one is in the list"),
        Counter("neurons_per_channel", _INT, "last", "Neurons of a channel; NULL without channels"),
        Counter("neuron_counts", pl.List(pl.Int64()), "sum", "Events of each of these neurons"),
    ],
)

_COUNTS = pl.col("neuron_counts")


def _over_list(figure: pl.Expr) -> pl.Expr:
    """A figure of all elements of the list."""
    return _COUNTS.list.eval(figure).list.first()


def _log_rates() -> pl.Expr:
    counts = pl.element().cast(pl.Float64)
    return counts.filter(counts > 0).log()


def _if_enough(figure: pl.Expr) -> pl.Expr:
    firing = _COUNTS.list.eval((pl.element() > 0).cast(pl.Int64)).list.sum()
    return pl.when(firing >= MIN_FIRING_NEURONS).then(figure)


@NEURONS.metric(unit="1", bad="high", source="Gini 1912")
def rate_gini() -> pl.Expr:
    """Gini coefficient of the neurons' rates: 0 when all fire alike, near 1 when few do it all."""
    x, n = pl.element().cast(pl.Float64).sort(), pl.element().len()
    rank = pl.element().cast(pl.Float64).cum_count()
    gini = 2 * (x * rank).sum() / (n * x.sum()) - (n + 1) / n
    return pl.when(_COUNTS.list.sum() > 0).then(_over_list(gini))


@NEURONS.metric(unit="1", bad="none", source="Buzsáki & Mizuseki 2014")
def log_rate_skewness() -> pl.Expr:
    """Skewness of ln rate over the neurons that fire: 0 for a log-normal distribution."""
    return _if_enough(_over_list(_log_rates().skew()))


@NEURONS.metric(unit="1", bad="none", source="Buzsáki & Mizuseki 2014")
def log_rate_excess_kurtosis() -> pl.Expr:
    """Excess kurtosis of ln rate over the neurons that fire: 0 if log-normal, −2 for two kinds."""
    return _if_enough(_over_list(_log_rates().kurtosis()))


@NEURONS.metric(unit="1", bad="none", source="Jarque & Bera 1980")
def lognormality_jb() -> pl.Expr:
    """Jarque-Bera statistic of ln rate, n/6 (S² + K²/4); above 6, not log-normal (p < 0.05)."""
    logs = _log_rates()
    jb = logs.len() / 6 * (logs.skew().pow(2) + logs.kurtosis().pow(2) / 4)
    return _if_enough(_over_list(jb))
