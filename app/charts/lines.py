"""Lines in lanes: what the user logs, and the figures of one layer."""

from collections.abc import Collection

import plotly.graph_objects as go
import polars as pl

from .style import PRIMARY, TEXT, blank, step_axis


_PHASE_LINES = {
    "train": {"color": PRIMARY, "width": 1.5},
    "eval": {"color": TEXT, "width": 1.5, "dash": "dot"},
}
_LANE_PX, _GAP_PX, _AROUND_PX = 96, 30, 62
MOST_LANES = 4


def line_lanes(lines: pl.DataFrame, *, percent: Collection[str] = ()) -> go.Figure:
    """One lane per name, each with its own scale, above a common axis of steps.

    Args:
        lines: Columns `name`, `phase`, `step`, `value`; the first `MOST_LANES` names are drawn.
        percent: Names whose values are fractions, shown in percent.
    """
    names = lines["name"].unique(maintain_order=True).to_list()[:MOST_LANES]
    height = max(300, (_LANE_PX + _GAP_PX) * len(names) + _AROUND_PX)
    fig = blank(height)
    phases = lines["phase"].unique(maintain_order=True).to_list()
    gap = _GAP_PX / (height - _AROUND_PX)
    lane = (1 + gap) / len(names)
    for i, name in enumerate(names):
        top = 1 - i * lane
        axis = {
            "domain": [max(top - lane + gap, 0), max(top, 0)],
            "nticks": 4,
            "anchor": "x",
            "exponentformat": "power",
        }
        if name in percent:
            axis |= {"tickformat": ".3~%", "rangemode": "tozero"}
        fig.update_layout({f"yaxis{i + 1 if i else ''}": axis})
        _add_title(fig, name, top)
        for phase in phases:
            part = lines.filter(name=name, phase=phase)
            if part.height:
                value = "%{y:.3~%}" if name in percent else "%{y:.5~g}"
                fig.add_scatter(
                    x=part["step"],
                    y=part["value"],
                    yaxis=f"y{i + 1 if i else ''}",
                    mode="lines" if part.height > 1 else "markers",
                    name=phase,
                    showlegend=len(phases) > 1 and i == 0,
                    line=_PHASE_LINES.get(phase, {"width": 1.5}),
                    hovertemplate=f"{name} ({phase})<br>step %{{x:,d}}: {value}<extra></extra>",
                )
    fig.update_layout(
        xaxis=step_axis()
        | {"anchor": f"y{len(names) if len(names) > 1 else ''}", "showgrid": True},
        margin={"t": 24},
        showlegend=len(phases) > 1,
        legend={"x": 1, "xanchor": "right", "y": 1},
    )
    return fig


def _add_title(fig: go.Figure, name: str, top: float) -> None:
    fig.add_annotation(
        text=f"<b>{name}</b>",
        x=0,
        xref="paper",
        xanchor="left",
        y=max(top, 0),
        yref="paper",
        yanchor="bottom",
        yshift=2,
        showarrow=False,
        font={"size": 11},
    )
