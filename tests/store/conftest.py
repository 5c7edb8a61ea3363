from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from spikewatch.journal import JournalWriter
from spikewatch.metrics import RECORDS, TABLES
from spikewatch.paths import journal_path


Tables = dict[str, pl.DataFrame]
NOON = datetime(2026, 1, 2, 12)


def table(name: str, *rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of a table, with what every row needs filled in."""
    full = [
        {
            "run": "r",
            "rank": 0,
            "phase": "train",
            "step": 0,
            "layer": "lif",
            "at": NOON + timedelta(seconds=row.get("step") or 0),
            **row,
        }
        for row in rows
    ]
    if name in TABLES:
        return TABLES[name].compute(pl.DataFrame(full))
    data = {c: [row.get(c) for row in full] for c in RECORDS[name]}
    return pl.DataFrame(data, schema=RECORDS[name])


@pytest.fixture
def rows_of() -> Callable[..., pl.DataFrame]:
    return table


@pytest.fixture
def step_tables() -> Callable[..., Tables]:
    """What one observed step of two layers writes."""

    def make(step: int) -> Tables:
        spikes = [
            {"step": step, "layer": layer, "n_obs": 10, "n_neurons": 4, "n_spikes": n}
            for layer, n in (("lif1", 8), ("lif2", 0))
        ]
        return {
            "spikes": table("spikes", *spikes),
            "scalars": table("scalars", {"step": step, "name": "loss", "value": 1.0 / (step + 1)}),
        }

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Append frames to the journal of a run; returns its path."""

    def append(*frames: Tables, run: str = "r", rank: int = 0) -> Path:
        path = journal_path(tmp_path, run, rank)
        with JournalWriter(path) as journal:
            for tables in frames:
                journal.append(tables)
        return path

    return append
