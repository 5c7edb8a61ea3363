"""Distributions over time, from the stored histograms."""

import numpy as np
import plotly.graph_objects as go
import polars as pl

from .style import NOW, blank, step_axis


# Transparent where there is nothing, so it works on white and on black.
_INK = [[0, "rgba(46,125,199,0)"], [0.15, "rgba(46,125,199,0.35)"], [1, "rgba(46,125,199,1)"]]


def histogram_map(
    histograms: pl.DataFrame, *, label: str, bounds: tuple[float, float] | None = None
) -> go.Figure:
    """Stored bins over time, each column scaled to its highest bin.

    Args:
        histograms: Columns `step`, `edges` (list, k + 1), `counts` (list, k), `below`, `above`; the
            edges are the same in every row.
        label: What is distributed.
        bounds: A healthy range to mark, in units of the edges.
    """
    edges = np.asarray(histograms["edges"][-1].to_list(), dtype=float)
    counts = np.asarray(histograms["counts"].to_list(), dtype=float).T
    total = counts.sum(axis=0) + histograms["below"].to_numpy() + histograms["above"].to_numpy()
    share = counts / np.where(total > 0, total, 1)
    top = share.max(axis=0)
    spaced = _log_spaced(edges)
    middle = np.sqrt(edges[1:] * edges[:-1]) if spaced else (edges[1:] + edges[:-1]) / 2
    fig = blank(300)
    fig.add_heatmap(
        x=histograms["step"].to_numpy(),
        y=middle,
        z=(share / np.where(top > 0, top, 1)).astype(np.float32),
        customdata=share.astype(np.float32),
        zmin=0,
        zmax=1,
        colorscale=_INK,
        showscale=False,
        hovertemplate=f"step %{{x:,d}}<br>{label} %{{y:.3~g}}<br>%{{customdata:.1%}} of it"
        "<extra></extra>",
    )
    inside = np.flatnonzero(counts.sum(axis=1))
    shown = _shown(edges, inside, bounds)
    axis: dict[str, object] = {"title": {"text": label, "standoff": 4}}
    if spaced:
        axis |= {"type": "log", "range": [float(np.log10(v)) for v in shown]}
        axis |= _octave_ticks(*shown)
    else:
        axis |= {"range": list(shown)}
    fig.update_layout(xaxis=step_axis(), yaxis=axis)
    for value in bounds or ():
        mark(fig, value, name=f"{value:g}")
    return fig


def mark(fig: go.Figure, value: float, *, name: str) -> None:
    """A dashed line across the picture, with its name at the right end."""
    fig.add_hline(y=value, line={"color": NOW, "width": 1, "dash": "dash"})
    fig.add_annotation(
        text=name,
        x=1,
        xref="paper",
        xanchor="right",
        # Plotly takes the exponent here, but not for the line.
        y=float(np.log10(value)) if fig.layout.yaxis.type == "log" else value,
        yanchor="bottom",
        showarrow=False,
        font={"size": 11},
    )


def outside_share(histograms: pl.DataFrame) -> float:
    """Share of the latest histogram that lies beyond its edges (0–1)."""
    last = histograms.row(-1, named=True)
    beyond = last["below"] + last["above"]
    total = sum(last["counts"]) + beyond
    return beyond / total if total else 0.0


def _log_spaced(edges: np.ndarray) -> bool:
    if edges[0] <= 0:
        return False
    ratios = edges[1:] / edges[:-1]
    return bool(np.allclose(ratios, ratios[0], rtol=1e-3)) and ratios[0] > 1.0001


def _octave_ticks(low: float, high: float) -> dict[str, object]:
    first, last = int(np.ceil(np.log2(low))), int(np.floor(np.log2(high)))
    ticks = [2.0**k for k in range(first, last + 1, 1 + (last - first) // 8)]
    return {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{t:.3g}" for t in ticks]}


def _shown(
    edges: np.ndarray, inside: np.ndarray, bounds: tuple[float, float] | None
) -> tuple[float, float]:
    """The part of the edges where something is, with two bins of air, and the bounds."""
    if not inside.size:
        return float(edges[0]), float(edges[-1])
    low = float(edges[max(int(inside[0]) - 2, 0)])
    high = float(edges[min(int(inside[-1]) + 3, len(edges) - 1)])
    if bounds:
        low = min(low, max(bounds[0] * 0.8, float(edges[0])))
        high = max(high, min(bounds[1] * 1.1, float(edges[-1])))
    return low, high
