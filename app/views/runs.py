"""All runs and how they are: the first page."""

import polars as pl
import streamlit as st
from streamlit.elements.lib.column_types import ColumnConfig

from .. import queries
from ..opened import FAILURES, Trouble, folder, the_store, trouble
from ..words import STATE_BADGES, age, show_trouble


_REFRESH_S = 2
_FIRING = {"critical": "red", "warning": "orange", "none": "green"}
_NO_RUNS = Trouble(
    "No runs yet",
    "Add one line to a training script, and its run appears here by itself within two seconds:",
)


def page() -> None:
    """List of runs with their health; a click on one opens it."""
    st.markdown("### Runs")
    _list()


@st.fragment(run_every=_REFRESH_S, key="runs-list")
def _list() -> None:
    store = the_store()
    if isinstance(store, Trouble):
        return show_trouble(store)
    try:
        runs, alerts = store.runs(), queries.firing_by_run(store)
    except FAILURES as error:
        return show_trouble(trouble(error))
    if runs.is_empty():
        show_trouble(_NO_RUNS)
        st.caption(f"Watching `{folder()}`")
        return None
    _strip(runs)
    opened = _table(runs, alerts)
    if opened is not None:
        # A new key forgets the selection, or coming back here would open the run again.
        st.session_state["_runs_opened"] = st.session_state.get("_runs_opened", 0) + 1
        st.switch_page(st.session_state["_pages"]["run"], query_params={"run": opened})
    return None


def _strip(runs: pl.DataFrame) -> None:
    ill = runs.filter((pl.col("n_critical") + pl.col("n_warning")) > 0)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        n_running = runs.filter(state="running").height
        st.badge(f"{n_running} running", color="green" if n_running else "gray")
        st.badge(f"{runs.height} run{'s'[: runs.height != 1]}", color="gray")
        if ill.height:
            st.badge(f"{ill.height} with firing alerts", color="red")
        else:
            st.badge("no alert fires", color="green")
        st.caption(f"in `{folder()}`", width="content")


def _table(runs: pl.DataFrame, alerts: pl.DataFrame) -> str | None:
    worst = alerts.group_by("run", maintain_order=True).first()
    rows = runs.join(worst, on="run", how="left", maintain_order="left").select(
        pl.concat_list("state").alias("state"),
        "run",
        pl.concat_list(
            pl.when(pl.col("n_critical") > 0).then(pl.format("{} critical", "n_critical")),
            pl.when(pl.col("n_warning") > 0).then(pl.format("{} warning", "n_warning")),
            pl.when((pl.col("n_critical") == 0) & (pl.col("n_warning") == 0)).then(pl.lit("none")),
        )
        .list.drop_nulls()
        .alias("firing"),
        pl.when(pl.col("rule").is_not_null())
        .then(
            pl.format(
                "{} · {} · since step {}", "rule", pl.col("layer").fill_null(""), "since_step"
            )
        )
        .alias("worst"),
        (pl.col("n_fired_critical") + pl.col("n_fired_warning")).alias("ever"),
        "last_step",
        pl.col("last_at").map_elements(lambda at: f"{age(at)} ago", pl.String).alias("last_row"),
        "n_layers",
        pl.col("started_at").dt.replace_time_zone("UTC"),
        "script",
    )
    chosen = st.dataframe(
        rows,
        key=f"runs-table-{st.session_state.get('_runs_opened', 0)}",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        height="content" if rows.height <= 18 else 680,
        placeholder="–",
        alt="Runs with their state and their firing alerts",
        column_config=_columns(rows),
    )
    st.caption("Select a row to open the run.")
    picked = chosen["selection"]["rows"]
    return rows["run"][picked[0]] if picked else None


def _columns(rows: pl.DataFrame) -> dict[str, ColumnConfig | str | None]:
    column = st.column_config
    counts = rows["firing"].explode().unique(maintain_order=True).to_list()
    return {
        "state": column.MultiselectColumn(
            "state",
            options=list(STATE_BADGES),
            color=[colour for colour, _, _ in STATE_BADGES.values()],
            width=90,
            help="; ".join(f"{name}: {says}" for name, (_, _, says) in STATE_BADGES.items()),
        ),
        "run": column.TextColumn("run", width="medium"),
        "firing": column.MultiselectColumn(
            "firing now",
            options=counts,
            color=[next(c for word, c in _FIRING.items() if word in n) for n in counts],
            width=150,
            help="Alerts that fire now",
        ),
        "worst": column.TextColumn("worst alert", width=360),
        "ever": column.NumberColumn("fired", help="Alerts that fired at any time", width=60),
        "last_step": column.NumberColumn("last step", format="localized", width=85),
        "last_row": column.TextColumn("last row", width=90, help="Age of the newest row"),
        "n_layers": column.NumberColumn("layers", width=60),
        "started_at": column.DatetimeColumn("started", format="YYYY-MM-DD HH:mm", width=130),
        "script": column.TextColumn("script", width="medium"),
    }
