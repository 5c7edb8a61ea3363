"""The panels of a run's page. Each says what to do when it has nothing to show."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import polars as pl
import streamlit as st
from streamlit.elements.lib.grid_container import GridContainer

from spikewatch.metrics import METRICS
from spikewatch.metrics.spikes import DEAD_EVIDENCE_OBS

from . import drawing, queries
from .alerting import metric_text
from .charts.style import percent
from .drawing import GRADIENT_LABELS, HISTOGRAM_LABELS, Moment
from .layer_lines import CARDS
from .layer_table import columns, layer_rows
from .live_plot import Picture, chart
from .words import SEVERITY_COLOURS, escape


_MOST_ALERTS = 12
_ALERTS_WITHOUT_SCROLLING = 2


def _grid(key: str, *, n_columns: int = 2) -> GridContainer:
    # The border is the grid's: so the cards of a row are equally high.
    return st.grid(n_columns, min_column_width=340, border=True, key=key)


@contextmanager
def _card(grid: GridContainer, title: str, *, about: str | None = None) -> Generator[None]:
    with grid.cell():
        st.markdown(f"**{title}**", help=about)
        yield


def _draw(drawn: Picture | None, *, key: str, otherwise: str) -> None:
    if drawn is None:
        st.caption(otherwise)
    else:
        chart(drawn, key=key)


def alerts_panel(store: queries.Source, moment: Moment, firing: pl.DataFrame) -> None:
    """What fires, why that may be and what to try; beside it, when it began."""
    drawn = drawing.timeline_picture(store, moment)
    if drawn is None and firing.is_empty():
        st.caption("✓ No alert has fired in this run.")
        return
    grid = _grid("alerts")
    with _card(grid, "Firing now"):
        if firing.is_empty():
            st.caption("✓ Nothing fires now; what fired before is on the timeline.")
        now = drawing.latest(store, moment)
        tall = firing.height > _ALERTS_WITHOUT_SCROLLING
        with st.container(height=380 if tall else "content", border=False, key="firing"):
            for alert in firing.head(_MOST_ALERTS).iter_rows(named=True):
                _alert(alert, now=_value_now(now, alert))
        if firing.height > _MOST_ALERTS:
            st.caption(f"and {firing.height - _MOST_ALERTS} more, see the timeline and the table.")
    with _card(grid, "Alert timeline", about="From the step a condition began to hold."):
        _draw(drawn, key="timeline", otherwise="No alert in these steps.")


def _value_now(latest: pl.DataFrame, alert: dict[str, Any]) -> float | None:
    of_layer = latest.filter(pl.col("layer") == alert["layer"])
    if alert["metric"] not in latest.columns or of_layer.is_empty():
        return None
    return of_layer[alert["metric"]][0]


def _alert(alert: dict[str, Any], *, now: float | None) -> None:
    severity, metric = alert["severity"], alert["metric"]
    colour = SEVERITY_COLOURS.get(severity, "gray")
    where = f" · `{alert['layer']}`" if alert["layer"] else ""
    then = metric_text(metric, alert["value"])
    figure = f"**{escape(then)}**" if now is None else f"**{escape(metric_text(metric, now))}**"
    if now is not None and metric_text(metric, now) != then:
        figure += f" (fired at {escape(then)})"
    st.markdown(
        f":{colour}-badge[{severity}] **{escape(alert['rule'])}**{where} since step "
        f"{alert['since_step']:,} · `{metric}` {figure}"
    )
    says = [escape(alert["summary"] or "")]
    says += [f"**Likely:** {escape(alert['likely'])}"] if alert["likely"] else []
    says += [f"**Try:** {escape(alert['advice'])}"] if alert["advice"] else []
    n = alert["n_following"]
    says += [f"**+ {n}** that follow{'s'[: n == 1]} from it, see the timeline."] if n else []
    st.caption("  \n".join(line for line in says if line))


def map_panels(store: queries.Source, moment: Moment) -> None:
    """Which layer, and when: firing rate and dead fraction."""
    rate = drawing.rate_picture(store, moment)
    if rate is None and drawing.has_only_weights(store, moment):
        return
    if rate is None:
        with st.container(border=True):
            st.markdown("**Firing rate and dead neurons**")
            st.caption(
                "No spiking layer has been observed in this run. If the model makes spikes, name "
                "the module with `attach(model, layers=['name'])`, or pass its output through "
                "`spikewatch.tap('name', spikes)`."
            )
        return
    threshold = drawing.dead_threshold()
    starts = f"colour starts at the rule's {percent(threshold, digits=0)}" if threshold else ""
    grid = _grid("maps")
    with _card(grid, "Mean firing rate · √ scale", about=METRICS["mfr"].meaning):
        chart(rate, key="rate-map")
    about = (
        f"{METRICS['dead_frac'].meaning} Blue: fewer than {DEAD_EVIDENCE_OBS} observations of each "
        "neuron so far, which is too little for a verdict."
    )
    with _card(grid, f"Dead neurons · {starts}", about=about):
        _draw(drawing.dead_picture(store, moment), key="dead-map", otherwise="No rows.")


def depth_panel(store: queries.Source, moment: Moment) -> None:
    """Gradients over the depth, and beside it what was logged."""
    spiking = not drawing.has_only_weights(store, moment)
    grid = _grid("depth", n_columns=1 + spiking)
    if spiking:
        with _card(grid, "Gradient by depth", about=METRICS["grad_rms"].meaning):
            _profile(store, moment)
    with _card(grid, "Loss and other scalars"):
        _draw(
            drawing.scalar_picture(store, moment),
            key="scalars",
            otherwise="Nothing was logged. Call `watch.log(loss=loss, accuracy=0.9)` after "
            "`optimizer.step()`.",
        )


def _profile(store: queries.Source, moment: Moment) -> None:
    metric = st.segmented_control(
        "Gradient",
        list(GRADIENT_LABELS),
        default="grad_rms",
        required=True,
        format_func=lambda name: GRADIENT_LABELS[name],
        label_visibility="collapsed",
        key="gradient",
        bind="query-params",
    )
    _draw(
        drawing.profile_picture(store, moment, metric or "grad_rms"),
        key="depth-profile",
        otherwise="No gradient has been seen. They are read in `loss.backward()`, in training "
        "mode, through layers with a surrogate gradient.",
    )


_ENERGY = (
    "Of the weight layers, and of products of activations, as in attention. Arithmetic: 0.9 pJ an "
    "addition, 4.6 pJ a multiplication with addition (45 nm, 32-bit float). Without spikes, each "
    "layer runs once a sample. Below 1, spikes are cheaper; the three models differ in what they "
    "leave out."
)


def energy_panel(store: queries.Source, moment: Moment) -> None:
    """What the operations cost, by three models side by side."""
    drawn = drawing.energy_picture(store, moment)
    if drawn is None:
        return
    grid = _grid("operations", n_columns=1)
    with _card(grid, "Operations and energy", about=_ENERGY):
        chart(drawn, key="energy")


def table_panel(store: queries.Source, moment: Moment, firing: pl.DataFrame) -> None:
    """All layers, the worst first; a selected row selects the layer below."""
    rows = layer_rows(
        drawing.layers(store, moment),
        drawing.latest(store, moment),
        drawing.trends(store, moment, "spikes"),
        firing,
    )
    if rows.is_empty():
        return
    names = rows["layer"].to_list()
    if _asked_layer() not in names:
        st.session_state["layer"] = names[0]
    with st.container(border=True):
        st.markdown("**Layers, worst first**", help="Figures of each layer's latest row.")
        # The order changes while the run lives: the selection follows the layer, not the row.
        st.session_state["layer-table"] = {
            "selection": {"rows": [names.index(_asked_layer())], "columns": []}
        }
        st.dataframe(
            rows,
            key="layer-table",
            hide_index=True,
            on_select=_select_layer,
            selection_mode="single-row-required",
            column_config=columns(rows, firing),
            height="content" if rows.height <= 14 else 520,
            placeholder="–",
            alt="Layers, worst first",
        )
    st.session_state["_layer_names"] = names


def _asked_layer() -> str | None:
    # Before the box below was drawn for the first time, only the URL knows.
    return st.session_state.get("layer", st.query_params.get("layer"))


def _select_layer() -> None:
    rows = st.session_state["layer-table"]["selection"]["rows"]
    names = st.session_state["_layer_names"]
    if rows and rows[0] < len(names):
        st.session_state["layer"] = names[rows[0]]


def layer_panel(store: queries.Source, moment: Moment) -> None:
    """One layer: its figures, ternary shares and distributions over time."""
    names = drawing.layers(store, moment)["layer"].to_list()
    if not names:
        return
    with st.container(horizontal=True, vertical_alignment="bottom", key="layer-choice"):
        layer = st.selectbox("Layer", names, key="layer", bind="query-params", width=420)
    kinds = drawing.histogram_kinds(store, moment).filter(pl.col("layer") == layer)["kind"]
    shares = drawing.ternary_picture(store, moment, layer)
    drawn_lines = {c: drawing.layer_picture(store, moment, layer, c) for c in CARDS}
    lines = {card: drawn for card, drawn in drawn_lines.items() if drawn is not None}
    if not lines and shares is None and kinds.is_empty():
        st.caption("Nothing of this layer has been observed in these steps.")
        return
    n_cards = len(lines) + (shares is not None) + kinds.len()
    grid = _grid("layer-charts", n_columns=min(n_cards, 3))
    for card, drawn in lines.items():
        with _card(grid, card.title):
            chart(drawn, key=card.key)
    if shares is not None:
        with _card(grid, "Ternary weights", about=METRICS["weight_zero_frac"].meaning):
            chart(shares, key="ternary")
    for kind in kinds:
        drawn, remark = drawing.histogram_picture(store, moment, layer, kind)
        with _card(grid, f"Distribution of the {HISTOGRAM_LABELS[kind]}"):
            chart(drawn, key=f"histogram-{kind}")
            if remark:
                st.caption(remark)
    _figures(store, moment, layer)


def _figures(store: queries.Source, moment: Moment, layer: str) -> None:
    """Every figure as a number, for who opens the box."""
    box = st.expander(
        "Every figure of this layer", key="figures", on_change="rerun", bind="query-params"
    )
    if not box.open:
        return
    with box:
        st.dataframe(
            drawing.figures(store, moment, layer),
            key="figures-table",
            hide_index=True,
            height="content",
            column_config={
                "metric": st.column_config.TextColumn(width=200),
                "value": st.column_config.TextColumn(width=90),
                "unit": st.column_config.TextColumn(width=60),
                "step": st.column_config.NumberColumn(width=70, help="Of the latest known value"),
            },
            alt=f"Every figure of {layer}",
        )
