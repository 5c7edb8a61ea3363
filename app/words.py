"""Small texts and badges that several pages use."""

from datetime import UTC, datetime
from typing import Literal

import streamlit as st

from .opened import Trouble


Colour = Literal["red", "orange", "blue", "green", "gray"]

STATE_BADGES: dict[str, tuple[Colour, str, str]] = {
    "running": ("green", "●", "A live process writes this run."),
    "finished": ("gray", "✓", "The run ended and was closed."),
    "failed": ("red", "✕", "An exception ended the run."),
    "lost": ("orange", "?", "The process is gone and never closed the run: it was killed."),
}
SEVERITY_COLOURS: dict[str, Colour] = {"critical": "red", "warning": "orange", "info": "blue"}


def utc_now() -> datetime:
    """Now, as times are stored: UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def age(at: datetime | None, *, now: datetime | None = None) -> str:
    """How long ago a stored time (UTC without a zone) was: `3 s`, `4 min`, `2 h`, `5 d`."""
    if at is None:
        return "–"
    seconds = max(((now or utc_now()) - at).total_seconds(), 0)
    for limit, size, unit in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def escape(text: str) -> str:
    """Text for Markdown that the user (or a rules file) wrote: nothing in it is markup."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]()<>#+-!|$:~" else c for c in text)


def show_trouble(trouble: Trouble) -> None:
    """Say what is in the way, and what to do."""
    with st.container(border=True):
        st.markdown(f"##### {'⚠️ ' if trouble.is_error else ''}{trouble.title}")
        st.markdown(trouble.advice)
        if not trouble.is_error:
            st.code(
                "import spikewatch\n\nwith spikewatch.attach(model) as watch:\n    train(model)",
                language="python",
            )
