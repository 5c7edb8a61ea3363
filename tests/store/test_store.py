"""Opening a store, sharing it between processes, and the list of runs."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import duckdb
import pytest

from spikewatch.errors import StoreError
from spikewatch.journal import JournalWriter
from spikewatch.store import Store, open_store
from spikewatch.store.connect import DATABASE


COUNT = "SELECT count(*) FROM scalars"


@contextlib.contextmanager
def other_process(code: str, *args: object):
    """A Python program that prints a line when it is ready; killed in the end."""
    argv = [sys.executable, "-u", "-c", code, *map(str, args)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline().strip() == "ready"
            yield child
        finally:
            child.kill()


HOLDER = """
import sys, time
from spikewatch.store import open_store
store = open_store(sys.argv[1])
store.refresh()
assert not store.is_replica
print("ready")
time.sleep(60)
"""


# -- where -----------------------------------------------------------------------------------


def test_an_empty_folder_is_a_store_without_runs(tmp_path):
    with open_store(tmp_path) as store:
        assert store.runs().height == 0
        assert store.sql("FROM spikes").height == 0


def test_the_folder_is_found_as_attach_finds_it(tmp_path, write, step_tables, monkeypatch):
    write(step_tables(0))
    monkeypatch.setenv("SPIKEWATCH_DIR", str(tmp_path))
    with open_store() as store:
        assert store.sql(COUNT).item() == 1


def test_a_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(StoreError, match=r"no runs folder at .*nowhere.*attach.*SPIKEWATCH_DIR"):
        open_store(tmp_path / "nowhere")


def test_one_run_is_no_runs_folder(tmp_path, write, step_tables):
    write(step_tables(0))
    with pytest.raises(StoreError, match=f"is one run. Open .*{tmp_path.name}"):
        open_store(tmp_path / "r")


def test_a_database_file_is_read_without_journals(tmp_path, write, step_tables):
    journal = write(step_tables(0))
    with open_store(tmp_path) as store:
        store.refresh()
    journal.unlink()
    with open_store(tmp_path / DATABASE) as store:
        assert store.sql(COUNT).item() == 1
        assert store.runs()["state"].to_list() == ["lost"]
        assert store.refresh() == store.refresh()
        with pytest.raises(StoreError, match="statements that read"):
            store.sql("DELETE FROM scalars")


def test_an_address_that_duckdb_can_attach_is_a_store(tmp_path, write, step_tables):
    write(step_tables(0))
    with open_store(tmp_path) as store:
        store.refresh()
    with open_store(f"duckdb:{tmp_path / DATABASE}") as store:
        assert store.sql("SELECT count(*) FROM spikes").item() == 2
        assert store.runs().height == 1
    with pytest.raises(StoreError, match=r"(?s)DuckDB cannot attach 'nosuch:thing'.*extension"):
        open_store("nosuch:thing")


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path):
    (tmp_path / "x.duckdb").write_text("hello " * 2000)
    with pytest.raises(StoreError, match=r"(?s)not a valid DuckDB database.*Check"):
        open_store(tmp_path / "x.duckdb")


def test_a_closed_store_says_so(tmp_path):
    store = open_store(tmp_path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="was closed"):
        store.sql("SELECT 1")


# -- the lock --------------------------------------------------------------------------------


def test_who_does_not_get_the_lock_reads_a_replica_that_keeps_level(tmp_path, write, step_tables):
    write(step_tables(0))
    with other_process(HOLDER, tmp_path), open_store(tmp_path) as store:
        assert store.is_replica
        assert store.sql(COUNT).item() == 1
        with JournalWriter(tmp_path / "live" / "rank-0.journal") as journal:
            for n in range(1, 4):
                journal.append(step_tables(n))
                began = time.monotonic()
                assert store.sql(COUNT).item() == 1 + n
                assert time.monotonic() - began < 2
            assert store.runs().row(0, named=True)["state"] == "running"
        with pytest.raises(StoreError, match="has it open"):
            open_store(tmp_path / DATABASE)


def test_the_lock_is_free_once_its_holder_was_killed(tmp_path, write, step_tables):
    write(step_tables(0))
    with other_process(HOLDER, tmp_path) as holder:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with open_store(tmp_path) as store:
            assert not store.is_replica
            assert store.sql(COUNT).item() == 1


def test_closing_a_store_frees_its_lock(tmp_path, write, step_tables):
    write(step_tables(0))
    with open_store(tmp_path) as store:
        store.refresh()
        store.sql(COUNT)
    with other_process(HOLDER, tmp_path):
        pass


def test_two_stores_in_one_process_store_each_row_once(tmp_path, write, step_tables):
    with open_store(tmp_path) as one, open_store(tmp_path) as two:
        for n in range(1, 6):
            write(step_tables(n))
            stores: list[Store] = [one, two]
            threads = [threading.Thread(target=s.refresh) for s in stores]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            assert [s.sql(COUNT).item() for s in stores] == [n, n]
            assert one.refresh() == two.refresh()


def test_many_threads_may_ask_one_store_while_rows_arrive(tmp_path, write, step_tables):
    counts: dict[int, list[int]] = {i: [] for i in range(4)}
    failures: list[Exception] = []
    done = threading.Event()

    def ask(name: int) -> None:
        try:
            while not done.is_set():
                # Two layers and one loss per step: whoever sees half a frame is found out.
                both = store.sql(
                    "SELECT (SELECT count(*) FROM spikes), (SELECT count(*) FROM scalars)"
                )
                spikes, losses = both.row(0)
                assert spikes == 2 * losses
                counts[name].append(losses)
        except Exception as error:  # noqa: BLE001 - shown below
            failures.append(error)

    with open_store(tmp_path) as store:
        threads = [threading.Thread(target=ask, args=(i,)) for i in counts]
        for t in threads:
            t.start()
        for step in range(25):
            write(step_tables(step))
        done.set()
        for t in threads:
            t.join()
        assert not failures
        assert store.sql(COUNT).item() == 25
    assert all(seen == sorted(seen) and seen for seen in counts.values())


READ_AS_NOBODY = """
import os, sys
from spikewatch.store import open_store
open_store(sys.argv[2]).runs()  # all that is imported late is imported while it may be
if os.geteuid() == 0:
    os.setuid(65534)
with open_store(sys.argv[1]) as store:
    print(store.is_replica, store.sql("SELECT count(*) FROM scalars").item(), store.runs().height)
"""


def test_a_folder_that_may_not_be_written_is_read_from_a_replica(step_tables, tmp_path):
    # Not in tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with JournalWriter(folder / "r" / "rank-0.journal") as journal:
            journal.append(step_tables(0))
        folder.chmod(0o555)
        argv = [sys.executable, "-c", READ_AS_NOBODY, str(folder), str(tmp_path)]
        child = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert child.stdout.strip() == "True 1 1", child.stderr
        assert "A copy in memory is used instead" in child.stderr
        assert not (folder / DATABASE).exists()
        folder.chmod(0o755)


def test_a_disk_that_fills_up_leaves_a_replica(write, step_tables, tmp_path, caplog):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    write(step_tables(0))
    try:
        with open_store(tmp_path) as store:
            assert store.sql(COUNT).item() == 1
            assert not store.is_replica
            mark = store.refresh()
            write(step_tables(1))
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
            assert store.sql(COUNT).item() == 2
            assert store.is_replica
            assert store.refresh() > mark
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert "cannot write" in caplog.text
    with open_store(tmp_path) as store:
        assert (store.is_replica, store.sql(COUNT).item()) == (False, 2)


# -- a database that cannot be used ----------------------------------------------------------


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(20_000))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def sqlite(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + bytes(4000))


def headless(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:4200] = bytes(104)
    data[8192:8300] = bytes(108)
    path.write_bytes(data)


def foreign(path: Path) -> None:
    path.unlink()
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE precious AS SELECT 42 AS x")


def other_types(path: Path) -> None:
    with duckdb.connect(str(path)) as con:
        con.execute("DROP VIEW wide; DROP VIEW metrics; DROP TABLE scalars")
        con.execute("CREATE TABLE scalars (run VARCHAR, value VARCHAR)")


@pytest.mark.parametrize("spoil", [garbage, empty, sqlite, headless, foreign, other_types])
def test_an_unusable_database_is_moved_aside_and_made_again(
    tmp_path, write, step_tables, caplog, spoil
):
    write(step_tables(0))
    with open_store(tmp_path) as store:
        store.refresh()
    spoil(tmp_path / DATABASE)
    spoiled = (tmp_path / DATABASE).read_bytes()
    with open_store(tmp_path) as store:
        assert not store.is_replica
        assert store.sql(COUNT).item() == 1
    assert (tmp_path / f"{DATABASE}.aside-1").read_bytes() == spoiled
    assert "moved to spikewatch.duckdb.aside-1" in caplog.text
    assert "made again from the journals" in caplog.text


def test_a_block_that_went_bad_is_noticed_when_it_is_read(tmp_path, write, step_tables, caplog):
    write(*(step_tables(i) for i in range(400)))
    with open_store(tmp_path) as store:
        store.refresh()
    path = tmp_path / DATABASE
    data = bytearray(path.read_bytes())
    for block in range(12288, len(data), 262144):  # three headers of 4 kB, then blocks of 256 kB
        data[block + 3000 : block + 3100] = os.urandom(100)
    path.write_bytes(data)
    with open_store(tmp_path) as store:
        assert store.sql("SELECT sum(n_spikes) FROM spikes").item() == 400 * 8
        assert store.sql(COUNT).item() == 400
    assert "moved to" in caplog.text


# -- runs ------------------------------------------------------------------------------------


def test_a_runs_state_is_read_off_its_lock_and_its_last_words(tmp_path, write, rows_of):
    def event(kind: str) -> dict:
        return {"events": rows_of("events", {"kind": kind})}

    write(event("attached"), event("closed"), run="finished")
    write(event("attached"), event("exception"), run="failed")
    write(event("attached"), run="lost")
    write(event("attached"), event("closed"), run="rank lost", rank=0)
    write(event("attached"), run="rank lost", rank=1)
    with JournalWriter(tmp_path / "running" / "rank-0.journal") as journal:
        journal.append(event("attached"))
        with open_store(tmp_path) as store:
            runs = store.runs()
    states = dict(zip(runs["run"], runs["state"], strict=True))
    assert states == {
        "finished": "finished",
        "failed": "failed",
        "lost": "lost",
        "rank lost": "lost",
        "running": "running",
    }


def test_the_list_of_runs_says_what_fires_and_what_ever_fired(tmp_path, write, rows_of):
    def alert(rule: str, state: str, severity: str, layer: str = "lif") -> dict:
        row = {"rule": rule, "state": state, "severity": severity, "layer": layer, "step": 9}
        return {"alerts": rows_of("alerts", row)}

    begin = {
        "runs": rows_of("runs", {"script": "train.py"}),
        "layers": rows_of("layers", {"layer": "a"}, {"layer": "b"}, {"layer": "a"}),
        "scalars": rows_of("scalars", {"name": "loss", "step": 41}),
    }
    alerts = [
        alert("dead", "firing", "warning"),
        alert("dead", "resolved", "warning"),
        alert("dead", "firing", "warning", "other"),
        alert("nan", "pending", "critical"),
        alert("nan", "firing", "critical"),
        alert("slow", "pending", "warning"),
    ]
    write(begin, *alerts)
    write(begin, alert("nan", "firing", "critical"), rank=1)
    write({"runs": rows_of("runs", {"step": 100})}, run="newer")
    with open_store(tmp_path) as store:
        runs = store.runs()
    assert runs["run"].to_list() == ["newer", "r"]
    newer, row = runs.rows(named=True)
    shown = {k: row[k] for k in row if k not in ("run", "state", "started_at", "last_at")}
    assert shown == {
        "last_step": 41,
        "n_layers": 2,
        "n_warning": 1,
        "n_critical": 1,
        "n_fired_warning": 2,
        "n_fired_critical": 1,
        "script": "train.py",
    }
    assert (row["last_at"] - row["started_at"]).total_seconds() == 41
    assert newer["n_layers"] == newer["n_warning"] == newer["n_fired_critical"] == 0
