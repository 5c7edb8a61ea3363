"""The alert timeline: what was wrong where, and from when to when."""

import plotly.graph_objects as go
import polars as pl

from .style import SEVERITY_COLOURS, blank, lanes_height, short_label, step_axis


MOST_LANES = 24
_BARS = ("critical", "warning", "info")


def alert_timeline(spans: pl.DataFrame, *, first_step: int, last_step: int) -> go.Figure:
    """A lane per rule and layer, a bar from the step it began to the step it was resolved.

    Args:
        spans: Columns `rule`, `layer`, `severity`, `state` (pending | firing | resolved),
            `begin`, `end`, `value_text`; worst first.
        first_step: Left end of the axis.
        last_step: Right end of the axis: the run's latest step.
    """
    spans = spans.with_columns(pl.format("{} · {}", "rule", "layer").alias("lane"))
    heads = spans.unique("lane", maintain_order=True).head(MOST_LANES)
    lanes = heads["lane"].to_list()
    spans = spans.filter(pl.col("lane").is_in(lanes))
    span_steps = max(last_step - first_step, 1)
    fig = blank(lanes_height(len(lanes), per_lane=34, around=90))
    for severity in _BARS:
        for state, opacity in (("firing", 1.0), ("resolved", 0.55), ("pending", 0.25)):
            part = spans.filter(severity=severity, state=state)
            if part.height:
                # A bar of a single step has to be seen, too.
                width = (part["end"] - part["begin"]).clip(lower_bound=max(1, span_steps // 150))
                fig.add_bar(
                    x=width,
                    base=part["begin"],
                    y=part["lane"],
                    orientation="h",
                    name=f"{severity}, {state}",
                    marker={"color": SEVERITY_COLOURS[severity], "opacity": opacity},
                    customdata=part.select("begin", "end", "value_text").rows(),
                    hovertemplate="%{y}<br>"
                    + f"{severity}, {state}"
                    + "<br>steps %{customdata[0]:,d}–%{customdata[1]:,d}"
                    "<br>%{customdata[2]}<extra></extra>",
                )
    fig.update_layout(
        barmode="overlay",
        bargap=0.35,
        xaxis=step_axis() | {"range": [first_step, first_step + span_steps], "showgrid": True},
        yaxis={
            "type": "category",
            "categoryorder": "array",
            "categoryarray": lanes,
            "tickmode": "array",
            "tickvals": lanes,
            "ticktext": [
                f"<b>{rule}</b><br>{short_label(layer, n_chars=26)}" if layer else f"<b>{rule}</b>"
                for rule, layer in heads.select("rule", "layer").rows()
            ],
            "tickfont": {"size": 11},
            "range": [len(lanes) - 0.5, -0.5],
            "ticks": "",
        },
        showlegend=True,
    )
    return fig
