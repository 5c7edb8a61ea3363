"""Depth profile: gradients that vanish or explode are a slope."""

from collections.abc import Sequence

import plotly.graph_objects as go
import polars as pl

from .style import NOW, PRIMARY, TEXT, blank, lanes_height, layer_axis


def depth_profile(
    profile: pl.DataFrame, layers: Sequence[str], *, label: str, n_steps: int
) -> go.Figure:
    """A figure per layer over the depth, now and in the recent past, on a log axis.

    A log axis has no place for 0, and 0 is what a vanished gradient is: such layers get an arrow at
    the left edge.

    Args:
        profile: Columns `layer`, `now`, `median`, `p10`, `p90`.
        layers: Layers from the input on.
        label: What the figure is, for the axis.
        n_steps: Observed steps behind the median and the band.
    """
    order = pl.DataFrame({"layer": list(layers)})
    rows = order.join(profile, on="layer", how="left")
    seen = pl.concat([rows[c] for c in ("now", "p10", "p90")]).drop_nulls()
    positive = seen.filter(seen > 0)
    floor = float(positive.min()) / 3 if positive.len() else 1e-6  # ty: ignore[invalid-argument-type]
    fig = blank(lanes_height(len(layers), per_lane=16, around=100))
    _add_band(fig, rows, floor, n_steps)
    alive = rows.with_columns(pl.when(pl.col("now") > 0).then(pl.col("now")))
    fig.add_scatter(
        x=alive["now"],
        y=alive["layer"],
        mode="lines+markers",
        name="now",
        connectgaps=False,
        line={"color": NOW, "width": 1.5},
        marker={"color": NOW, "size": 7},
        hovertemplate="%{y}<br>now %{x:.3~g}<extra></extra>",
    )
    vanished = rows.filter(pl.col("now") == 0)
    if vanished.height:
        fig.add_scatter(
            x=[floor] * vanished.height,
            y=vanished["layer"],
            mode="markers",
            name="exactly 0",
            marker={"color": NOW, "size": 10, "symbol": "triangle-left-open", "line": {"width": 2}},
            hovertemplate="%{y}<br>now exactly 0<extra></extra>",
        )
    axis = {"type": "log", "title": {"text": label, "standoff": 6}, "exponentformat": "power"}
    fig.update_layout(
        xaxis=axis | {"dtick": 1 if positive.len() and _decades(positive) > 1.5 else None},
        yaxis=layer_axis(layers) | {"showgrid": True},
        showlegend=True,
    )
    return fig


def _add_band(fig: go.Figure, rows: pl.DataFrame, floor: float, n_steps: int) -> None:
    band = rows.drop_nulls(["p10", "p90"]).with_columns(pl.col("p10", "p90").clip(floor))
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    fig.add_scatter(x=band["p10"], y=band["layer"], showlegend=False, **edge)
    fig.add_scatter(
        x=band["p90"],
        y=band["layer"],
        name=f"p10–p90, last {n_steps}",
        fill="tonextx",
        fillcolor="rgba(86,140,230,0.22)",
        **edge,
    )
    middle = rows.filter(pl.col("median") > 0)
    fig.add_scatter(
        x=middle["median"],
        y=middle["layer"],
        mode="lines",
        name="median",
        line={"color": PRIMARY if middle.height else TEXT, "width": 1.5, "dash": "dot"},
        hovertemplate="%{y}<br>median %{x:.3~g}<extra></extra>",
    )


def _decades(positive: pl.Series) -> float:
    span = positive.log10()
    return float(span.max()) - float(span.min())  # ty: ignore[invalid-argument-type]
