"""From journals to rows: each exactly once, whatever the journals hold."""

import shutil

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from spikewatch.errors import StoreError
from spikewatch.journal import JournalWriter
from spikewatch.metrics import RECORDS, TABLES
from spikewatch.store import ingest, open_store
from spikewatch.store.schema import FRAMES


def steps(store, run: str = "r") -> list[int]:
    found = store.sql("SELECT step FROM scalars WHERE run = ? ORDER BY step", [run])
    return found["step"].to_list()


def test_rows_come_out_as_they_went_in(tmp_path, write, rows_of):
    tables = {
        "spikes": rows_of(
            "spikes",
            {"layer": "a", "n_obs": 5, "n_neurons": 9, "n_spikes": 2, "silent": b"\x80\x80"},
            {"layer": "b", "n_obs": 5, "n_neurons": 9, "silent": None},
        ),
        "gradients": rows_of("gradients", {"layer": "a", "n_sg": 4, "sum_sg": float("inf")}),
        "histograms": rows_of(
            "histograms", {"kind": "alpha", "edges": [0.0, 0.5, 1.0], "counts": [1, 2], "below": 3}
        ),
        "scalars": rows_of("scalars", {"name": "loss", "value": float("nan")}),
        "alerts": rows_of("alerts", {"rule": "dead", "state": "firing", "value": 0.5}),
        "events": rows_of("events", {"kind": "note", "message": "ünïcode 'quoted'", "step": None}),
    }
    write(tables)
    with open_store(tmp_path) as store:
        for name, expected in tables.items():
            stored = store.sql(f"SELECT * FROM {name}")
            assert_frame_equal(stored, expected)


def test_the_catalogue_needs_no_type_that_is_not_stored(tmp_path, write, rows_of):
    write({name: rows_of(name, {}) for name in (*TABLES, *RECORDS)})
    with open_store(tmp_path) as store:
        for name in (*TABLES, *RECORDS):
            assert store.sql(f"FROM {name}").height == 1


def test_bit_i_of_silent_is_neuron_i_and_bitmaps_of_ranks_merge(tmp_path, write, rows_of):
    for rank, silent in enumerate((b"\xc0\x80", b"\x60\x80")):  # neurons 0, 1, 8; neurons 1, 2, 8
        write({"spikes": rows_of("spikes", {"n_neurons": 9, "silent": silent})}, rank=rank)
    query = """SELECT bit_count(bit_and(silent)) AS dead, bit_count(bit_or(silent)) AS ever,
        [get_bit(bit_and(silent), i::INTEGER) FOR i IN range(9)] AS neurons FROM spikes"""
    with open_store(tmp_path) as store:
        found = store.sql(query).row(0, named=True)
    assert found == {"dead": 2, "ever": 4, "neurons": [0, 1, 0, 0, 0, 0, 0, 0, 1]}


def test_a_growing_journal_is_read_from_where_it_was_left(tmp_path, write, step_tables):
    write(step_tables(0))
    with open_store(tmp_path) as store:
        marks = [store.refresh()]
        for step in range(1, 6):
            write(step_tables(step))
            marks.append(store.refresh())
            assert store.refresh() == marks[-1]
            assert steps(store) == list(range(step + 1))
    assert marks == sorted(set(marks))
    with open_store(tmp_path) as store:
        assert store.refresh() == marks[-1]
        assert steps(store) == list(range(6))


def test_small_batches_give_the_same_rows(tmp_path, write, step_tables, monkeypatch):
    monkeypatch.setattr(ingest, "BATCH_BYTES", 1)
    write(*(step_tables(i) for i in range(7)))
    with open_store(tmp_path) as store:
        assert steps(store) == list(range(7))
        assert store.refresh() == 7


def test_what_nobody_knows_is_left_out_and_breaks_nothing(tmp_path, write, step_tables):
    tables = step_tables(0)
    tables["scalars"] = tables["scalars"].with_columns(color=pl.lit("red"))
    tables["wavelets"] = pl.DataFrame({"x": [1]})
    write(tables)
    odd = step_tables(1)
    odd["scalars"] = odd["scalars"].with_columns(value=pl.lit("not a number"))
    odd["spikes"] = odd["spikes"].drop("mfr").with_columns(pl.col("n_obs").cast(pl.Int16))
    write(odd)
    with open_store(tmp_path) as store:
        assert store.sql("SELECT step, value FROM scalars ORDER BY step").rows() == [
            (0, 1.0),
            (1, None),
        ]
        assert store.sql("SELECT n_obs, mfr FROM spikes WHERE step = 1").row(0) == (10, None)
        assert store.sql("SELECT unknown FROM journals").item().to_list() == [
            "scalars.color",
            "scalars.value (String)",
            "wavelets",
        ]


def test_what_an_older_version_left_out_is_read_once_it_is_known(
    tmp_path, write, rows_of, step_tables, monkeypatch
):
    alerts = rows_of("alerts", {"rule": "dead", "state": "firing", "advice": "lower the threshold"})
    write(step_tables(0), {"alerts": alerts})
    older = {c: t for c, t in FRAMES["alerts"].items() if c != "advice"}
    with monkeypatch.context() as past:
        past.setitem(FRAMES, "alerts", older)
        with open_store(tmp_path) as store:
            assert "advice" not in store.sql("FROM alerts").columns
    with open_store(tmp_path) as store:
        assert store.sql("SELECT advice FROM alerts").rows() == [("lower the threshold",)]
        assert steps(store) == [0]


def test_a_deleted_run_leaves_the_store(tmp_path, write, step_tables):
    write(step_tables(0))
    write(step_tables(0), run="other")
    with open_store(tmp_path) as store:
        mark = store.refresh()
        shutil.rmtree(tmp_path / "other")
        assert store.refresh() > mark
        assert store.sql("SELECT DISTINCT run FROM spikes")["run"].to_list() == ["r"]
        assert store.runs()["run"].to_list() == ["r"]


def test_a_run_that_takes_anothers_name_takes_its_place(tmp_path, write, step_tables):
    write(step_tables(0), step_tables(1))
    with open_store(tmp_path) as store:
        assert steps(store) == [0, 1]
        shutil.rmtree(tmp_path / "r")
        write(*(step_tables(i) for i in (5, 6, 7)))
        assert steps(store) == [5, 6, 7]


def test_a_copied_folder_is_a_run_of_its_own(tmp_path, write, step_tables):
    write(step_tables(0))
    shutil.copytree(tmp_path / "r", tmp_path / "copy of r")
    with open_store(tmp_path) as store:
        assert steps(store, "r") == steps(store, "copy of r") == [0]
        (tmp_path / "r").rename(tmp_path / "renamed")
        assert steps(store, "r") == []
        assert steps(store, "renamed") == [0]


def test_damage_in_a_journal_becomes_an_event_of_the_run(tmp_path, write, step_tables, caplog):
    path = write(step_tables(0))
    end = path.stat().st_size
    write(step_tables(1), step_tables(2))
    data = bytearray(path.read_bytes())
    data[end + 50] ^= 0xFF
    path.write_bytes(data)
    with open_store(tmp_path) as store:
        assert steps(store) == [0, 2]
        event = store.sql("SELECT run, kind, message FROM events").row(0, named=True)
    assert event["run"] == "r"
    assert event["kind"] == "fault"
    assert "damaged" in event["message"]
    assert "damaged" in caplog.text


def test_a_file_that_is_no_journal_is_named_once_and_hides_no_other(
    tmp_path, write, step_tables, caplog
):
    write(step_tables(0))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "rank-0.journal").write_text("no journal at all, but some text")
    (tmp_path / "bad" / "rank-x.journal").write_text("not a rank")
    with open_store(tmp_path) as store:
        assert steps(store) == [0]
        write(step_tables(1))
        assert steps(store) == [0, 1]
    assert caplog.text.count("not a spikewatch journal") == 1


def test_a_folder_that_went_away_is_an_error_and_no_empty_store(tmp_path, step_tables):
    folder = tmp_path / "runs"
    with JournalWriter(folder / "r" / "rank-0.journal") as journal:
        journal.append(step_tables(0))
    with open_store(folder) as store:
        assert steps(store) == [0]
        folder.rename(tmp_path / "moved")
        with pytest.raises(StoreError, match=r"runs folder .* is gone"):
            store.sql("SELECT 1")
        (tmp_path / "moved").rename(folder)
        assert steps(store) == [0]
