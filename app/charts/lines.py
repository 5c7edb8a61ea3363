"""What the user logs: loss, accuracy, learning rate."""

import plotly.graph_objects as go
import polars as pl

from .style import PRIMARY, TEXT, blank, step_axis


_PHASE_LINES = {
    "train": {"color": PRIMARY, "width": 1.5},
    "eval": {"color": TEXT, "width": 1.5, "dash": "dot"},
}
_ROW_PX, _GAP_PX = 120, 26
MOST_ROWS = 4


def scalar_lines(scalars: pl.DataFrame) -> go.Figure:
    """One lane per scalar, each with its own scale, above a common axis of steps.

    Args:
        scalars: Columns `name`, `phase`, `step`, `value`; the first `MOST_ROWS` names are drawn.
    """
    names = scalars["name"].unique(maintain_order=True).to_list()[:MOST_ROWS]
    height = max(300, (_ROW_PX + _GAP_PX) * len(names) + 50)
    fig = blank(height)
    both = scalars["phase"].n_unique() > 1
    gap = _GAP_PX / height
    lane = (1 + gap) / len(names)
    for i, name in enumerate(names):
        number = "" if i == 0 else str(i + 1)
        top = 1 - i * lane
        fig.update_layout(
            {
                f"yaxis{number}": {
                    "domain": [max(top - lane + gap, 0), top],
                    "nticks": 5,
                    "anchor": "x",
                }
            }
        )
        fig.add_annotation(
            text=f"<b>{name}</b>",
            **{"x": 0, "xref": "paper", "xanchor": "left", "y": top, "yref": "paper"},
            yanchor="bottom",
            showarrow=False,
            font={"size": 11},
        )
        of_name = scalars.filter(pl.col("name") == name)
        for phase in of_name["phase"].unique(maintain_order=True):
            part = of_name.filter(pl.col("phase") == phase)
            fig.add_scatter(
                x=part["step"],
                y=part["value"],
                yaxis=f"y{number}",
                mode="lines" if part.height > 1 else "markers",
                name=phase,
                showlegend=both and i == 0,
                line=_PHASE_LINES.get(phase, {"width": 1.5}),
                hovertemplate=f"{name} ({phase})<br>step %{{x:,d}}: %{{y:.5~g}}<extra></extra>",
            )
    last = "y" if len(names) == 1 else f"y{len(names)}"
    fig.update_layout(
        xaxis=step_axis() | {"anchor": last, "showgrid": True},
        margin={"t": 22},
        showlegend=both,
        legend={"x": 1, "xanchor": "right", "y": 1},
    )
    return fig
