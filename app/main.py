"""The script that Streamlit runs for every session: which pages there are."""

import streamlit as st

# Streamlit runs this file by its path, so there is no package to be relative to.
from spikewatch.app.views import run, runs  # ty: ignore[import-not-found]


# An emoji, because for an icon by name the browser would ask Google's font server.
st.set_page_config(page_title="spikewatch", page_icon="⚡", layout="wide")
# Streamlit greys what a slow refresh has not reached yet; where a page refreshes by itself, that is
# nothing but flicker.
st.html("<style>[data-stale=true] { opacity: 1 !important; transition: none !important }</style>")
overview = st.Page(runs.page, title="Runs", url_path="runs", default=True)
detail = st.Page(run.page, title="Run", url_path="run")
st.session_state["_pages"] = {"run": detail, "runs": overview}
st.navigation([overview, detail], position="top").run()
