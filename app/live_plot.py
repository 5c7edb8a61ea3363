"""Plotly figures that are changed in place.

`st.plotly_chart` makes a new DOM node for new data: at every refresh the chart blinks and zoom is
lost (https://github.com/streamlit/streamlit/issues/8782, seen with 1.67). When that is mended, this
file and its JavaScript can go: `chart()` is all that the pages know of it.
"""

from dataclasses import dataclass
from pathlib import Path

import plotly
import plotly.graph_objects as go
import streamlit as st


PLOTLY_JS = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
PLOTLY_ROUTE = "/spikewatch/plotly.min.js"

_mount = st.components.v2.component(
    "spikewatch_plot",
    html='<div class="spikewatch-plot" style="width:100%;height:100%"></div>',
    js=Path(__file__).with_suffix(".js").read_text(encoding="utf-8"),
    isolate_styles=False,  # Plotly puts its styles into the document's head
)


@dataclass(frozen=True)
class Picture:
    """A finished figure, ready to be kept and to be sent.

    Attributes:
        figure: The figure as Plotly's JSON.
        height: Pixels.
        alt: What a screen reader says.
    """

    figure: str
    height: int
    alt: str


def picture(fig: go.Figure, *, alt: str, keep: str = "") -> Picture:
    """Finish a figure.

    Args:
        fig: The figure; its layout has a height.
        alt: What it shows, for those who cannot see it.
        keep: The reader's zoom stays while this is the same.
    """
    fig.update_layout(uirevision=keep or alt)
    return Picture(fig.to_json(), int(fig.layout.height), alt)


def chart(fig: Picture, *, key: str) -> dict[str, object] | None:
    """Draw a figure, or change the one that is drawn under this key.

    Returns:
        `x` and `y` of the point that was just clicked, if one was.
    """
    data = {
        "figure": fig.figure,
        "alt": fig.alt,
        "src": f"{PLOTLY_ROUTE.lstrip('/')}?v={plotly.__version__}",
    }
    state = _mount(data=data, key=key, height=fig.height, on_clicked_change=lambda: None)
    return state.clicked
