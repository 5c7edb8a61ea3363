"""The few figures at the top of a run's page: the latest rows' own values, and how they moved."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from spikewatch.metrics import METRICS

from .charts.style import percent, short_label


_SPARK_POINTS = 60


@dataclass(frozen=True)
class Kpi:
    """One card.

    Attributes:
        label: What it is.
        value: The latest figure, written out.
        delta: Change since the beginning of the sparkline, written out; 0 where there is none.
        where: Which layer, or over which steps.
        spark: The sparkline's values; empty for none.
        bad: Which direction is unhealthy (`high`, `low`, `none`).
        about: What the figure means.
    """

    label: str
    value: str
    delta: str | int | None = None
    where: str = ""
    spark: list[float] = field(default_factory=list)
    bad: str = "none"
    about: str = ""


def kpis(
    latest: pl.DataFrame,
    spikes: pl.DataFrame,
    gradients: pl.DataFrame,
    weights: pl.DataFrame,
    scalars: pl.DataFrame,
    latest_scalars: pl.DataFrame,
    *,
    layers: Sequence[str],
) -> list[Kpi]:
    """The cards for a run; what a run does not have gets no card.

    Args:
        latest: The latest row of each layer.
        spikes: Trend of the table `spikes`.
        gradients: Trend of `gradients`.
        weights: Trend of `weights`.
        scalars: Trend of the scalars.
        latest_scalars: The latest value of each scalar.
        layers: Names from the input on.
    """
    cards: list[Kpi | None] = []
    if spikes.height:
        cards += [_worst(latest, spikes, "dead_frac", "Dead neurons, worst layer")]
        cards += [_rate(latest, spikes)]
    if gradients.height:
        cards += [_gradient_ratio(latest, gradients, layers)]
    if weights.height:
        cards += [_worst(latest, weights, "weight_zero_frac", "Zero weights, worst layer")]
    if latest_scalars.height:
        cards += [_scalar(latest_scalars, scalars)]
    return [card for card in cards if card is not None]


def _worst(latest: pl.DataFrame, trend: pl.DataFrame, metric: str, label: str) -> Kpi:
    known = latest.drop_nulls(metric).sort(metric, descending=True)
    about = METRICS[metric].meaning
    if known.is_empty():
        return Kpi(label, "–", where="too little evidence yet", about=about)
    row = known.row(0, named=True)
    spark = _spark(trend.group_by("step").agg(pl.col(metric).max()).sort("step")[metric])
    return Kpi(
        label,
        percent(row[metric]),
        delta=_points(spark),
        where=short_label(row["layer"], n_chars=20),
        spark=[100 * v for v in spark],
        bad="high",
        about=about,
    )


def _rate(latest: pl.DataFrame, trend: pl.DataFrame) -> Kpi:
    slots = (pl.col("n_obs") * pl.col("n_neurons")).sum()
    merged = (pl.col("n_spikes").sum() / slots).fill_nan(None)  # 0 of 0: all of them were NaN
    rate = (
        latest.drop_nulls("n_spikes").select(merged).item() if latest["n_spikes"].count() else None
    )
    by_step = trend.group_by("step").agg(pl.col("mfr").mean()).sort("step")
    spark = _spark(by_step["mfr"])
    return Kpi(
        "Firing rate, all layers",
        percent(rate),
        delta=_points(spark),
        where="latest step",
        spark=[100 * v for v in spark],
        about=METRICS["mfr"].meaning,
    )


def _gradient_ratio(latest: pl.DataFrame, trend: pl.DataFrame, layers: Sequence[str]) -> Kpi | None:
    known = latest.drop_nulls("grad_rms")
    names = [name for name in layers if name in set(known["layer"])]
    if len(names) < 2:
        return None
    first, last = names[0], names[-1]
    now = dict(known.select("layer", "grad_rms").rows())
    ratio = now[first] / now[last] if now[last] else None
    both = trend.filter(pl.col("layer").is_in([first, last])).pivot(
        "layer", index="step", values="grad_rms"
    )
    spark = _spark((both[first] / both[last]).fill_nan(None)) if len(both.columns) == 3 else []
    return Kpi(
        "Gradient, first / last layer",
        "–" if ratio is None else f"{ratio:.3g}",
        where="RMS of ∂L/∂s",
        spark=spark,
        about="RMS of ∂L/∂s at the first spiking layer over that at the last one. Gradients that "
        "vanish on their way back make it small, gradients that explode make it large.",
    )


def _scalar(latest_scalars: pl.DataFrame, scalars: pl.DataFrame) -> Kpi:
    name, value = latest_scalars.row(0)
    of_name = scalars.filter(pl.col("name") == name).sort("step")
    if of_name["phase"].n_unique() > 1:
        of_name = of_name.filter(phase="train")
    spark = _spark(of_name["value"])
    bad = "high" if "loss" in name.lower() else "none"
    delta = f"{spark[-1] - spark[0]:+.3g}" if len(spark) > 1 and spark[-1] != spark[0] else 0
    return Kpi(
        name,
        "–" if value is None else f"{value:.4g}",
        delta=delta,
        where="",
        spark=spark,
        bad=bad,
        about=f"The scalar that was logged as `{name}`.",
    )


def _spark(values: pl.Series) -> list[float]:
    """At most `_SPARK_POINTS` finite values, the latest among them."""
    kept = values.drop_nulls()
    kept = kept.filter(kept.is_finite())
    every = max(1, -(-kept.len() // _SPARK_POINTS))
    return kept.reverse().gather_every(every).reverse().to_list()


def _points(spark: list[float]) -> str | int | None:
    if len(spark) < 2:
        return None
    change = round(100 * (spark[-1] - spark[0]), 1)
    return f"{change:+.1f} pp" if change else 0
