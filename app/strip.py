"""The top of a run's page: is it healthy now?"""

from datetime import datetime
from typing import Any, Literal

import polars as pl
import streamlit as st

from . import drawing, queries
from .drawing import Moment
from .kpis import kpis
from .words import SEVERITY_COLOURS, STATE_BADGES, age, escape, utc_now


_STALE_S = 60


def _seconds_since(at: datetime) -> float:
    return (utc_now() - at).total_seconds()


def status_strip(
    about: dict[str, Any], *, live: bool, step: int | None, firing: pl.DataFrame
) -> None:
    """Name and state of the run, its step, the age of its newest row, and what fires."""
    colour, sign, meaning = STATE_BADGES[about["state"]]
    with st.container(
        horizontal=True, vertical_alignment="center", gap="small", key="status-strip"
    ):
        st.markdown(f"### {escape(about['run'])}", width="content")
        st.badge(f"{sign} {about['state']}", color=colour, help=meaning)
        if not live:
            st.badge("❚❚ paused", color="violet", help="Turn *Live* on to follow the run")
        if step is not None:
            st.badge(f"step {step:,}", color="gray")
        if about["last_at"] is not None:
            stale = about["state"] == "running" and _seconds_since(about["last_at"]) > _STALE_S
            st.badge(
                f"last row {age(about['last_at'])} ago",
                color="orange" if stale else "gray",
                help="The process is alive, but nothing was observed lately" if stale else None,
            )
        for severity in SEVERITY_COLOURS:
            n = firing.filter(severity=severity).height if firing.height else 0
            if n:
                st.badge(f"{n} {severity}", color=SEVERITY_COLOURS[severity])
        if not firing.height:
            st.badge("no alert fires", color="green")


def kpi_cards(store: queries.Source, moment: Moment) -> None:
    """The figures of the latest rows, each with its recent past."""
    cards = kpis(
        drawing.latest(store, moment),
        drawing.trends(store, moment, "spikes"),
        drawing.trends(store, moment, "gradients"),
        drawing.trends(store, moment, "weights"),
        drawing.scalars(store, moment),
        drawing.latest_scalars(store, moment),
        layers=drawing.layers(store, moment)["layer"].to_list(),
    )
    if not cards:
        return
    colours: dict[str, Literal["inverse", "normal", "off"]] = {
        "high": "inverse",
        "low": "normal",
        "none": "off",
    }
    with st.grid(min(len(cards), 5), min_column_width=150, row_height=178, key="kpis"):
        for card in cards:
            st.metric(
                card.label,
                card.value,
                card.delta,
                delta_color=colours[card.bad],
                delta_description=card.where or None,
                chart_data=card.spark or None,
                help=card.about,
                border=True,
                height="stretch",
            )
