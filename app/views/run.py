"""One run: is it healthy now, which layer is not, since when, and what to try."""

from dataclasses import dataclass
from typing import Any

import polars as pl
import streamlit as st

from spikewatch.store import Store

from .. import drawing
from ..drawing import Moment
from ..opened import FAILURES, Trouble, folder, the_store, trouble
from ..panels import (
    alerts_panel,
    depth_panel,
    energy_panel,
    layer_panel,
    map_panels,
    table_panel,
)
from ..scope import Scope
from ..strip import kpi_cards, status_strip
from ..words import show_trouble


_WINDOWS = {"all": None, "200": 200, "1000": 1000, "5000": 5000}
_INTERVALS_S = (1, 2, 5, 10)
_NO_ROWS = Trouble(
    "This run has no rows yet",
    "Nothing was observed so far. The first step is always observed, so rows appear when the first "
    "`optimizer.step()` is done. If training is past that, look at the run's events: "
    '`spikewatch query "SELECT * FROM events"`.',
)


@dataclass(frozen=True)
class _Controls:
    run: str
    window: str
    live: bool
    every_s: int


def page() -> None:
    """A run's page: controls beside, everything else refreshes by itself."""
    found = _run_names()
    if isinstance(found, Trouble):
        st.markdown("### Run")
        _wait(found)
        return
    controls = _controls(found)
    body = st.fragment(_body, run_every=controls.every_s if controls.live else None, key="run-body")
    body(controls, tuple(found))


@st.fragment(run_every=2, key="run-wait")
def _wait(known: Trouble) -> None:
    """Until there is something to show: say what is in the way, and look again."""
    found = _run_names()
    show_trouble(found if isinstance(found, Trouble) else known)
    if not isinstance(found, Trouble):
        st.rerun()


def _run_names() -> list[str] | Trouble:
    store = the_store()
    if isinstance(store, Trouble):
        return store
    try:
        names = store.runs()["run"].to_list()
    except FAILURES as error:
        return trouble(error)
    return names or Trouble(
        "No runs yet", "Add one line to a training script, and its run appears here by itself:"
    )


def _controls(runs: list[str]) -> _Controls:
    asked = st.query_params.get("run")
    if st.session_state.get("run") not in runs and asked not in runs:
        if asked:
            st.warning(f"There is no run `{asked}` in `{folder()}`. This is the newest one.")
        # In the address, too: a link to the newest run keeps its meaning when a newer one comes.
        st.query_params["run"] = st.session_state["run"] = runs[0]
    with st.sidebar:
        run = st.selectbox(
            "Run", runs, index=None, key="run", bind="query-params", label_visibility="collapsed"
        )
        window = st.segmented_control(
            "Steps",
            list(_WINDOWS),
            default="all",
            required=True,
            key="window",
            bind="query-params",
            help="Show the whole run, or its latest steps",
        )
        live = st.toggle("Live", value=True, key="live", bind="query-params")
        every_s = st.segmented_control(
            "Refresh every … s",
            _INTERVALS_S,
            default=2,
            required=True,
            key="every",
            bind="query-params",
            disabled=not live,
        )
    return _Controls(run or runs[0], window or "all", live, every_s or 2)


def _body(controls: _Controls, known_runs: tuple[str, ...]) -> None:
    store = the_store()
    if isinstance(store, Trouble):
        return show_trouble(store)
    try:
        watermark = store.refresh()
        runs = store.runs()
        about = runs.filter(run=controls.run)
        if about.is_empty():
            return show_trouble(_gone(controls.run))
        _sections(store, watermark, controls, about.row(0, named=True))
    except FAILURES as error:
        return show_trouble(trouble(error))
    if tuple(runs["run"]) != known_runs:
        st.rerun()  # the list of runs in the sidebar is not part of this fragment
    return None


def _sections(store: Store, watermark: int, controls: _Controls, about: dict[str, Any]) -> None:
    facts = drawing.facts(store, folder(), watermark, controls.run)
    if facts.is_empty():
        status_strip(about, live=controls.live, step=None, firing=pl.DataFrame())
        return show_trouble(_NO_ROWS)
    top = st.container()
    moment = Moment(folder(), watermark, _scope(facts, controls))
    firing = drawing.firing(store, moment)
    with top:
        status_strip(about, live=controls.live, step=moment.scope.last_step, firing=firing)
    kpi_cards(store, moment)
    alerts_panel(store, moment, firing)
    map_panels(store, moment)
    depth_panel(store, moment)
    table_panel(store, moment, firing)
    layer_panel(store, moment)
    energy_panel(store, moment)
    return None


def _scope(facts: pl.DataFrame, controls: _Controls) -> Scope:
    ranks = facts["rank"].unique().sort().to_list()
    rank = ranks[0]
    if len(ranks) > 1:
        rank = st.segmented_control(
            "Rank",
            ranks,
            default=rank,
            label_visibility="collapsed",
            required=True,
            key="rank",
            bind="query-params",
        )
    of_rank = facts.filter(rank=rank)
    phases = of_rank["phase"].to_list()
    phase = phases[0]
    if len(phases) > 1:
        phase = st.segmented_control(
            "Phase",
            phases,
            default=phase,
            label_visibility="collapsed",
            required=True,
            key="phase",
            bind="query-params",
        )
    row = of_rank.filter(phase=phase).row(0, named=True)
    window = _WINDOWS[controls.window]
    first = row["first_step"]
    if window is not None:
        first = max(first, row["last_step"] - window + 1)
    return Scope(controls.run, rank, phase, first, row["last_step"])


def _gone(run: str) -> Trouble:
    return Trouble(
        "This run is not in the runs folder",
        f"There is no run `{run}` in `{folder()}`. Choose another one beside, or see *Runs*.",
    )
