"""What `streamlit run` serves: the page, plotly.js from the installed package, and a health check.

SPIKEWATCH_DIR=runs python -m streamlit run asgi.py --server.address=127.0.0.1
"""

from pathlib import Path

import anyio.to_thread
import streamlit as st
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route

# Streamlit loads this file by its path, so there is no package to be relative to.
from spikewatch.app.health import health  # ty: ignore[import-not-found]
from spikewatch.app.live_plot import PLOTLY_JS, PLOTLY_ROUTE  # ty: ignore[import-not-found]


async def _plotly_js(_: Request) -> FileResponse:
    # The page asks with the version in the query, so a new one is fetched.
    kept = {"Cache-Control": "public, max-age=31536000, immutable"}
    return FileResponse(PLOTLY_JS, media_type="text/javascript", headers=kept)


async def _healthz(_: Request) -> JSONResponse:
    state = await anyio.to_thread.run_sync(health)
    return JSONResponse(state, status_code=200 if state["ok"] else 503)


app = st.App(
    Path(__file__).with_name("main.py"),
    routes=[Route(PLOTLY_ROUTE, _plotly_js), Route("/healthz", _healthz)],
)
