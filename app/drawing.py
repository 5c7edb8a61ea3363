"""Finished pictures and tables, kept until rows arrive.

Every function here is keyed by a `Moment`: the store's watermark and what part of the run is shown.
While nothing changed, a refresh recomputes nothing and sends what the browser already has. All
sessions share what is kept.
"""

from dataclasses import dataclass

import polars as pl
import streamlit as st

from spikewatch.metrics import METRICS
from spikewatch.metrics.amplitudes import AMPLITUDE_RANGE

from . import alerting, queries
from .charts.bins import histogram_map, mark, outside_share
from .charts.heatmaps import dead_map, rate_map
from .charts.lines import line_lanes
from .charts.profile import depth_profile
from .charts.shares import ternary_shares
from .charts.style import percent
from .charts.timeline import alert_timeline
from .layer_lines import Lines
from .live_plot import Picture, picture
from .scope import Scope


PROFILE_STEPS = 100
GRADIENT_LABELS = {
    "grad_rms": "RMS of ∂L/∂s",
    "grad_norm": "norm of ∂L/∂s",
    "sg_mean": "mean |σ′|",
}
ENERGY_LABELS = {
    "sops_per_sample": "synaptic operations for a sample",
    "energy_ratio_compute": "energy / the same without spikes: arithmetic only",
    "energy_ratio_equal_cost": "… all operations at the same cost",
    "energy_ratio_memory": "… arithmetic and memory traffic",
}
HISTOGRAM_LABELS = {
    "amplitude": "amplitude",
    "alpha": "scale α",
    "latent_weight": "latent weight",
    "membrane": "membrane potential (u − θ)/θ",
    "ttfs": "time to first spike [steps]",
}

# Drawn again when rows arrive, so that many are stale soon; a few sessions' worth is enough.
_keep = st.cache_data(max_entries=256, ttl=300, show_spinner=False)


@dataclass(frozen=True)
class Moment:
    """What was in the store when the page was drawn, and which part of it is shown."""

    folder: str
    watermark: int
    scope: Scope

    @property
    def zoom_key(self) -> str:
        """The reader's zoom stays while this is the same."""
        return f"{self.scope.run}/{self.scope.rank}/{self.scope.phase}"


@_keep
def facts(_store: queries.Source, folder: str, watermark: int, run: str) -> pl.DataFrame:  # noqa: ARG001
    """See `queries.facts`."""
    return queries.facts(_store, run)


@_keep
def layers(_store: queries.Source, moment: Moment) -> pl.DataFrame:
    """See `queries.layers`."""
    return queries.layers(_store, moment.scope.run)


@_keep
def latest(_store: queries.Source, moment: Moment) -> pl.DataFrame:
    """See `queries.latest`."""
    return queries.latest(_store, moment.scope)


@_keep
def figures(_store: queries.Source, moment: Moment, layer: str) -> pl.DataFrame:
    """Every known figure of a layer, in the order of the catalogue, and what it is."""
    known = {row["metric"]: row for row in queries.figures(_store, moment.scope, layer).to_dicts()}
    rows = [
        {
            "metric": name,
            "value": alerting.metric_text(name, known[name]["value"]),
            "unit": "" if metric.unit in ("1", "fraction") else metric.unit,
            "step": known[name]["step"],
            "what it is": metric.meaning,
        }
        for name, metric in METRICS.items()
        if name in known
    ]
    return pl.DataFrame(rows)


@_keep
def latest_scalars(_store: queries.Source, moment: Moment) -> pl.DataFrame:
    """See `queries.latest_scalars`."""
    return queries.latest_scalars(_store, moment.scope)


@_keep
def trends(_store: queries.Source, moment: Moment, table: str) -> pl.DataFrame:
    """See `queries.trends`."""
    return queries.trends(_store, moment.scope, table)


@_keep
def scalars(_store: queries.Source, moment: Moment) -> pl.DataFrame:
    """See `queries.scalars`."""
    return queries.scalars(_store, moment.scope)


@_keep
def alerts(_store: queries.Source, moment: Moment) -> pl.DataFrame:
    """See `queries.alert_rows`."""
    return queries.alert_rows(_store, moment.scope.run)


@_keep
def firing(_store: queries.Source, moment: Moment) -> pl.DataFrame:
    """See `alerting.firing`."""
    return alerting.firing(alerts(_store, moment))


@_keep
def histogram_kinds(_store: queries.Source, moment: Moment) -> pl.DataFrame:
    """See `queries.histogram_kinds`."""
    return queries.histogram_kinds(_store, moment.scope)


@st.cache_data(max_entries=8, show_spinner=False)
def dead_threshold() -> float | None:
    """Where the rules begin to complain of dead neurons (0–1)."""
    return alerting.threshold_of("dead_frac")


@_keep
def rate_picture(_store: queries.Source, moment: Moment) -> Picture | None:
    """Firing rate by layer and step; None without spiking layers."""
    names, rates = _spiking(_store, moment)
    if not names:
        return None
    return picture(
        rate_map(rates, names),
        alt=f"Mean firing rate of {len(names)} layers over the steps",
        keep=moment.zoom_key,
    )


@_keep
def dead_picture(_store: queries.Source, moment: Moment) -> Picture | None:
    """Dead fraction by layer and step; None without spiking layers."""
    names, rates = _spiking(_store, moment)
    if not names:
        return None
    return picture(
        dead_map(rates, names, threshold=dead_threshold()),
        alt=f"Share of dead neurons in {len(names)} layers over the steps",
        keep=moment.zoom_key,
    )


def _spiking(store: queries.Source, moment: Moment) -> tuple[list[str], pl.DataFrame]:
    rates = trends(store, moment, "spikes")
    seen = set(rates["layer"])
    return [name for name in layers(store, moment)["layer"] if name in seen], rates


@_keep
def profile_picture(_store: queries.Source, moment: Moment, metric: str) -> Picture | None:
    """Gradients over the depth; None where no backward pass reached the spikes."""
    profile = queries.gradient_profile(_store, moment.scope, metric, n_steps=PROFILE_STEPS)
    profile = profile.drop_nulls("median")
    seen = set(profile["layer"])
    names = [name for name in layers(_store, moment)["layer"] if name in seen]
    if not names:
        return None
    label = GRADIENT_LABELS[metric]
    fig = depth_profile(profile, names, label=label, n_steps=PROFILE_STEPS)
    alt = f"{label} by layer, now and over the last {PROFILE_STEPS} observed steps"
    return picture(fig, alt=alt, keep=f"{moment.zoom_key}/{metric}")


def has_only_weights(store: queries.Source, moment: Moment) -> bool:
    """Whether the run has quantized weights and no spiking layer: nothing of spikes is shown."""
    kinds = set(layers(store, moment)["kind"])
    return "ternary" in kinds and not kinds & {"spiking", "tap"}


@_keep
def ternary_picture(_store: queries.Source, moment: Moment, layer: str) -> Picture | None:
    """Shares of −1, 0 and +1 in a layer's weights; None where they are not ternary."""
    shares = trends(_store, moment, "weights").filter(pl.col("layer") == layer)
    shares = shares.drop_nulls("weight_zero_frac")
    if shares.is_empty():
        return None
    alt = f"Shares of −1, 0 and +1 in the weights of {layer}"
    return picture(ternary_shares(shares), alt=alt, keep=f"{moment.zoom_key}/{layer}")


@_keep
def layer_picture(
    _store: queries.Source, moment: Moment, layer: str, lines: Lines
) -> Picture | None:
    """Some figures of a layer over the steps; None where none of them is known."""
    parts = [
        queries.layer_trend(_store, moment.scope, layer, table, metric).with_columns(
            pl.lit(moment.scope.phase).alias("phase"), pl.lit(label).alias("name")
        )
        for table, metric, label in lines.lanes
    ]
    rows = pl.concat(parts).drop_nulls("value")
    if rows.is_empty():
        return None
    shares = [label for _, metric, label in lines.lanes if METRICS[metric].unit == "fraction"]
    alt = f"{lines.title}: {layer} over the steps"
    keep = f"{moment.zoom_key}/{layer}"
    return picture(line_lanes(rows, percent=shares), alt=alt, keep=keep)


@_keep
def histogram_picture(
    _store: queries.Source, moment: Moment, layer: str, kind: str
) -> tuple[Picture, str]:
    """A distribution over time, and a remark on what lies beyond its bins."""
    rows = queries.histograms(_store, moment.scope, layer, kind)
    label = HISTOGRAM_LABELS[kind]
    bounds = AMPLITUDE_RANGE if kind == "amplitude" else None
    fig = histogram_map(rows, label=label, bounds=bounds)
    beyond = outside_share(rows)
    remark = f"{percent(beyond)} of the latest lie beyond the stored bins." if beyond else ""
    if kind == "latent_weight":
        delta = latest(_store, moment).filter(pl.col("layer") == layer)["delta"].drop_nulls()
        for sign in (-1, 1) if delta.len() else ():
            mark(fig, sign * delta[0], name="+Δ" if sign > 0 else "−Δ")
    alt = f"Distribution of {label} in {layer} over the steps"
    return picture(fig, alt=alt, keep=f"{moment.zoom_key}/{layer}"), remark


@_keep
def energy_picture(_store: queries.Source, moment: Moment) -> Picture | None:
    """Operations and their energy by three models; None where no operation was counted."""
    figures = queries.energy(_store, moment.scope)
    rows = pl.concat(
        figures.select(
            "step",
            pl.lit(moment.scope.phase).alias("phase"),
            pl.lit(label).alias("name"),
            pl.col(metric).alias("value"),
        )
        for metric, label in ENERGY_LABELS.items()
    ).drop_nulls("value")
    if rows.is_empty():
        return None
    alt = "Synaptic operations and energy of all weight layers over the steps"
    return picture(line_lanes(rows), alt=alt, keep=moment.zoom_key)


@_keep
def scalar_picture(_store: queries.Source, moment: Moment) -> Picture | None:
    """What was logged; None if nothing was."""
    rows = scalars(_store, moment).drop_nulls("value")
    if rows.is_empty():
        return None
    return picture(line_lanes(rows), alt="Logged scalars over the steps", keep=moment.zoom_key)


@_keep
def timeline_picture(_store: queries.Source, moment: Moment) -> Picture | None:
    """The alert timeline; None if no rule was ever pending or fired."""
    spans = alerting.spans(alerts(_store, moment), last_step=moment.scope.last_step)
    spans = spans.filter(pl.col("end") >= moment.scope.first_step)
    if spans.is_empty():
        return None
    fig = alert_timeline(
        spans, first_step=moment.scope.first_step, last_step=moment.scope.last_step
    )
    return picture(fig, alt="When each alert began and ended", keep=moment.zoom_key)
