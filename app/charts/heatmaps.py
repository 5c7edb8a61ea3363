"""Layer × step pictures: which layer, and when."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import polars as pl

from .style import (
    HEALTHY,
    UNKNOWN,
    UNKNOWN_MARK,
    blank,
    cividis,
    colour_bar,
    lanes_height,
    layer_axis,
    matrix,
    percent,
    step_axis,
)


# Rates above are shown like this one: few healthy layers fire in more than a third of their slots,
# and a fixed range keeps a colour's meaning from one refresh, and one run, to the next.
RATE_TOP = 0.3


def rate_map(rates: pl.DataFrame, layers: Sequence[str]) -> go.Figure:
    """Mean firing rate by layer and step, on a √ scale from 0 to 30 %.

    Args:
        rates: Columns `layer`, `step`, `mfr` (0–1).
        layers: Layers from the input on.
    """
    steps, rate, _ = matrix(rates, layers, "mfr")
    ticks = [0, 0.01, 0.05, 0.1, 0.2, RATE_TOP]
    labels = [percent(t, digits=0) for t in ticks]
    labels[-1] = "≥ " + labels[-1]
    fig = _picture(layers)
    fig.add_heatmap(
        x=steps,
        y=list(layers),
        z=np.sqrt(rate),
        customdata=rate,
        zmin=0,
        zmax=RATE_TOP**0.5,
        colorscale=cividis(),
        colorbar=colour_bar([t**0.5 for t in ticks], labels),
        ygap=1,
        hoverongaps=False,
        hovertemplate="%{y}<br>step %{x:,d}<br>firing rate %{customdata:.3~%}<extra></extra>",
    )
    return fig


def dead_map(dead: pl.DataFrame, layers: Sequence[str], *, threshold: float | None) -> go.Figure:
    """Dead fraction by layer and step; colour begins where the alert rule does.

    Three states look different: grey is below the threshold, amber to red is above, and blue means
    that there is a row but too little evidence for a verdict.

    Args:
        dead: Columns `layer`, `step`, `dead_frac` (0–1 or NULL).
        layers: Layers from the input on.
        threshold: Threshold of the rule on `dead_frac`; None colours from 0.
    """
    steps, share, present = matrix(dead, layers, "dead_frac")
    at = min(max(threshold or 0.0, 0.0), 0.99)
    fig = _picture(layers)
    unknown = present & np.isnan(share)
    if unknown.any():
        _add_unknown(fig, steps, layers, unknown)
    ticks = sorted({0.0, at, 0.25, 0.5, 1.0})
    fig.add_heatmap(
        x=steps,
        y=list(layers),
        z=np.sqrt(share),
        customdata=share,
        zmin=0,
        zmax=1,
        colorscale=_alarm_scale(at**0.5),
        colorbar=colour_bar([t**0.5 for t in ticks], [percent(t, digits=0) for t in ticks]),
        ygap=1,
        hoverongaps=False,
        hovertemplate="%{y}<br>step %{x:,d}<br>dead %{customdata:.3~%}<extra></extra>",
    )
    return fig


def _alarm_scale(at: float) -> list[list[float | str]]:
    rest = 1 - at
    grey = [[0.0, HEALTHY], [at, HEALTHY]] if at else []
    return [*grey, [at, "#F0B83C"], [at + 0.4 * rest, "#DD7423"], [1.0, "#9B1B1F"]]


def _add_unknown(
    fig: go.Figure, steps: np.ndarray, layers: Sequence[str], unknown: np.ndarray
) -> None:
    fig.add_heatmap(
        x=steps,
        y=list(layers),
        z=np.where(unknown, np.float32(1), np.float32("nan")),
        colorscale=[[0, UNKNOWN], [1, UNKNOWN]],
        showscale=False,
        ygap=1,
        hoverongaps=False,
        hovertemplate="%{y}<br>step %{x:,d}<br>too little evidence yet<extra></extra>",
    )
    # In the axis title, because a legend would move the picture, and it lies beside another.
    mark = f'<span style="color:{UNKNOWN_MARK}">■</span> too little evidence yet'
    fig.update_xaxes(title={"text": f"optimizer step   {mark}"})


def _picture(layers: Sequence[str]) -> go.Figure:
    fig = blank(lanes_height(len(layers)))
    fig.update_layout(xaxis=step_axis(), yaxis=layer_axis(layers))
    return fig
