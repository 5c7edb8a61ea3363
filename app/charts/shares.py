"""Ternary weights over time: how −1, 0 and +1 share a layer."""

import plotly.graph_objects as go
import polars as pl

from .style import NEGATIVE, POSITIVE, ZERO, blank, step_axis


_BANDS = (
    ("−1", "weight_negative_frac", NEGATIVE),
    ("0", "weight_zero_frac", ZERO),
    ("+1", "weight_positive_frac", POSITIVE),
)


def ternary_shares(shares: pl.DataFrame) -> go.Figure:
    """Stacked shares of −1, 0 and +1; always 100 % high.

    Args:
        shares: Columns `step` and the three `weight_*_frac` (0–1), of one layer.
    """
    fig = blank(300)
    for name, column, colour in _BANDS:
        fig.add_scatter(
            x=shares["step"],
            y=shares[column],
            name=name,
            mode="lines",
            stackgroup="shares",
            line={"width": 0, "color": colour, "shape": "hv"},
            fillcolor=colour,
            hovertemplate=f"{name}: %{{y:.1%}}<extra></extra>",
        )
    fig.update_layout(
        xaxis=step_axis(),
        yaxis={"range": [0, 1], "tickformat": ".0%", "dtick": 0.25},
        hovermode="x unified",
        showlegend=True,
        legend={"traceorder": "normal"},
    )
    return fig
