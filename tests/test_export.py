"""What TensorBoard shows is what the store holds."""

import math
import sys
from datetime import UTC, datetime

import polars as pl
import pytest

from spikewatch.errors import MissingExtraError, StoreError
from spikewatch.export import export_tensorboard
from spikewatch.journal import JournalWriter
from spikewatch.metrics import RECORDS, TABLES
from spikewatch.paths import journal_path
from spikewatch.store import open_store


AT = datetime(2026, 1, 2, 12)
KEYS = {"run": "r", "rank": 0, "phase": "train", "layer": "net.lif", "at": AT}


def step_tables(step: int, **other: object) -> dict[str, pl.DataFrame]:
    keys = KEYS | {"step": step} | other
    counts = {"n_obs": 10, "n_neurons": 4, "n_spikes": step}
    histogram = {
        "kind": "alpha",
        "edges": [0.0, 1.0, 2.0],
        "counts": [3, 4],
        "below": 1,
        "above": 2,
    }
    rows = {
        "histograms": keys | histogram,
        "scalars": keys | {"name": "loss", "value": 1.0 / (step + 1)},
        "runs": keys,
    }
    return {"spikes": TABLES["spikes"].compute(pl.DataFrame([keys | counts]))} | {
        name: pl.DataFrame([{c: row.get(c) for c in RECORDS[name]}], schema=RECORDS[name])
        for name, row in rows.items()
    }


@pytest.fixture
def store(tmp_path):
    with JournalWriter(journal_path(tmp_path / "runs", "r", 0)) as journal:
        for step in range(3):
            journal.append(step_tables(step))
        journal.append(step_tables(2, phase="eval"))
    with open_store(tmp_path / "runs") as opened:
        yield opened


def read_back(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"histograms": 0, "tensors": 0}).Reload()


def test_metrics_scalars_and_histograms_come_back_out_of_tensorboard(store, tmp_path):
    n = export_tensorboard(store, "r", tmp_path / "tb")
    shown = read_back(tmp_path / "tb" / "r" / "train")
    rates = shown.Scalars("mfr/net.lif")
    assert [e.step for e in rates] == [0, 1, 2]
    assert [e.value for e in rates] == pytest.approx([0, 0.025, 0.05])
    assert rates[0].wall_time == AT.replace(tzinfo=UTC).timestamp()
    assert [e.value for e in shown.Scalars("loss")] == pytest.approx([1, 1 / 2, 1 / 3])
    assert "dead_frac/net.lif" not in shown.Tags()["scalars"]  # no evidence, no point
    first = shown.Histograms("alpha/net.lif")[0].histogram_value
    assert first.num == 10
    assert dict(zip(first.bucket_limit, first.bucket, strict=True)) == {0: 1, 1: 3, 2: 4, 3: 2}
    assert math.isclose(first.sum, 0 + 3 * 0.5 + 4 * 1.5 + 2 * 2)
    evaluated = read_back(tmp_path / "tb" / "r" / "eval")
    assert [e.step for e in evaluated.Scalars("loss")] == [2]
    n_read = sum(len(e.Scalars(t)) for e in (shown, evaluated) for t in e.Tags()["scalars"])
    assert n == n_read + 3 + 1


def test_ranks_are_kept_apart(store, tmp_path):
    with JournalWriter(journal_path(tmp_path / "runs", "r", 1)) as journal:
        journal.append(step_tables(0, rank=1))
    export_tensorboard(store, "r", tmp_path / "tb")
    names = {p.name for p in (tmp_path / "tb" / "r").iterdir()}
    assert names == {"train-rank0", "train-rank1", "eval-rank0"}


def test_an_unknown_run_is_answered_with_those_that_there_are(store, tmp_path):
    with pytest.raises(StoreError, match=r"no run 'x'. The runs here: 'r'"):
        export_tensorboard(store, "x", tmp_path / "tb")


def test_a_folder_that_cannot_be_made_is_said_to_be_so(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Cannot write TensorBoard files"):
        export_tensorboard(store, "r", tmp_path / "file")


def test_without_tensorboard_the_extra_is_named(store, tmp_path, monkeypatch):
    for name in [m for m in sys.modules if m.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    with pytest.raises(MissingExtraError, match=r"spikewatch\[tensorboard\]"):
        export_tensorboard(store, "r", tmp_path / "tb")
