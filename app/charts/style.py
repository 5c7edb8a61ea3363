"""What all figures share: colours, axes and names.

Colours that have to follow the reader's light or dark theme are written as CSS variables of
Streamlit (`var(--st-…)`); the browser side fills them in. The others are safe for colour-blind
readers, and none carries a meaning that is not also written out.
"""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.colors import sample_colorscale


TEXT = "var(--st-text-color)"
PRIMARY = "var(--st-primary-color)"
BACKGROUND = "var(--st-background-color)"
SEVERITY_COLOURS = {
    "critical": "var(--st-red-color)",
    "warning": "var(--st-orange-color)",
    "info": "var(--st-blue-color)",
}
NEGATIVE, ZERO, POSITIVE = "#2166AC", "rgba(128,128,128,0.28)", "#D6604D"
HEALTHY = "rgba(128,128,128,0.20)"
UNKNOWN = "rgba(86,140,230,0.22)"
UNKNOWN_MARK = "rgba(86,140,230,0.6)"
NOW = "#D55E00"

_LABEL_CHARS = 24


def short_label(name: str, *, n_chars: int = _LABEL_CHARS) -> str:
    """The end of a qualified name, which says most of it, cut at a dot if that fits."""
    if len(name) <= n_chars:
        return name
    parts = name.split(".")
    for first in range(1, len(parts)):
        end = ".".join(parts[first:])
        if len(end) < n_chars:
            return "…" + end
    return "…" + name[-(n_chars - 1) :]


def short_labels(names: Sequence[str], *, n_chars: int = _LABEL_CHARS) -> list[str]:
    """Names that fit beside an axis; those that would look alike once cut are left whole."""
    cut = [short_label(name, n_chars=n_chars) for name in names]
    return [c if cut.count(c) == 1 else n for c, n in zip(cut, names, strict=True)]


def percent(share: float | None, *, digits: int = 1) -> str:
    """A fraction as the reader sees it: `0.0512` → `5.1 %`; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def matrix(frame: pl.DataFrame, layers: Sequence[str], column: str) -> tuple[np.ndarray, ...]:
    """Lay a long frame out as a picture.

    Args:
        frame: Columns `layer`, `step` and `column`; at most one row per layer and step.
        layers: Layers from top to bottom.
        column: What the picture shows.

    Returns:
        Steps of shape [S], values of shape [L, S] (NaN where NULL or without a row), and whether
        there is a row, of shape [L, S].
    """
    frame = frame.filter(pl.col("layer").is_in(list(layers)))
    steps = frame["step"].unique().sort().to_numpy()
    row_of = {name: i for i, name in enumerate(layers)}
    rows = np.array([row_of[name] for name in frame["layer"]], dtype=int)
    columns = np.searchsorted(steps, frame["step"].to_numpy())
    values = np.full((len(layers), len(steps)), np.nan, dtype=np.float32)
    present = np.zeros(values.shape, dtype=bool)
    values[rows, columns] = frame[column].cast(pl.Float32).fill_null(float("nan")).to_numpy()
    present[rows, columns] = True
    return steps, values, present


def layer_axis(layers: Sequence[str]) -> dict[str, object]:
    """A y axis with one lane per layer, the input on top."""
    return {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": list(layers),
        "tickmode": "array",
        "tickvals": list(layers),
        "ticktext": short_labels(layers),
        "tickfont": {"size": 11 if len(layers) <= 24 else 9},
        "range": [len(layers) - 0.5, -0.5],
        "showgrid": False,
        "ticks": "",
    }


def step_axis(title: str = "optimizer step") -> dict[str, object]:
    """An x axis of steps."""
    return {"title": {"text": title, "standoff": 6}, "showgrid": False, "tickformat": ",d"}


def lanes_height(n_lanes: int, *, per_lane: int = 17, around: int = 70) -> int:
    """Pixels for a figure with lanes: readable with three layers and with sixty."""
    return int(np.clip(around + per_lane * n_lanes, 240, 900))


def colour_bar(values: Sequence[float], labels: Sequence[str]) -> dict[str, object]:
    """A slim colour bar with ticks at `values`, named `labels`."""
    return {
        "tickmode": "array",
        "tickvals": list(values),
        "ticktext": list(labels),
        "thickness": 10,
        "outlinewidth": 0,
        "ticks": "outside",
        "ticklen": 3,
        "xpad": 6,
        "len": 1,
        "lenmode": "fraction",
        "ypad": 0,
    }


def cividis() -> list[list[object]]:
    """The Cividis scale, spelled out so that the browser needs no template."""
    stops = np.linspace(0, 1, 12)
    return [[float(p), c] for p, c in zip(stops, sample_colorscale("Cividis", stops), strict=True)]


def blank(height: int) -> go.Figure:
    """A figure with the margins and the height that all of them have."""
    return go.Figure(
        layout={
            "height": height,
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
            "template": None,
            "hovermode": "closest",
            "showlegend": False,
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 1.0,
                "yanchor": "bottom",
                "bgcolor": "rgba(0,0,0,0)",
                "font": {"size": 11},
            },
        }
    )
