"""The journal on its own: what is appended is read, whatever happens to the file in between."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st
from polars.testing import assert_frame_equal

from spikewatch.errors import StoreError
from spikewatch.journal import Frame, JournalWriter, is_being_written, journal_id, read_frames


def scalars(*values: float, name: str = "loss") -> dict[str, pl.DataFrame]:
    return {"scalars": pl.DataFrame({"name": [name] * len(values), "value": list(values)})}


def write(path: Path, *values: float) -> list[int]:
    with JournalWriter(path) as journal:
        return [journal.append(scalars(v)) for v in values]


def values(frames: list[Frame]) -> list[float]:
    return [v for f in frames for v in f.tables["scalars"]["value"]]


def run_child(code: str, *args: object, **how: object) -> subprocess.CompletedProcess:
    argv = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, **how)


CELLS = {
    "integer": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    "real": st.one_of(st.none(), st.floats()),
    "text": st.one_of(st.none(), st.text(max_size=20)),
    "bitmap": st.one_of(st.none(), st.binary(max_size=20)),
    "edges": st.one_of(st.none(), st.lists(st.floats(allow_nan=False), max_size=5)),
    "at": st.one_of(st.none(), st.datetimes()),
}
SCHEMA = {
    "integer": pl.Int64,
    "real": pl.Float64,
    "text": pl.String,
    "bitmap": pl.Binary,
    "edges": pl.List(pl.Float64),
    "at": pl.Datetime("us"),
}
TABLE = st.lists(st.fixed_dictionaries(CELLS), max_size=5).map(
    lambda rows: pl.DataFrame(rows, schema=SCHEMA)
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(st.text(min_size=1, max_size=8), TABLE, max_size=4), max_size=5))
def test_what_is_appended_is_what_is_read(tmp_path_factory, appended):
    path = tmp_path_factory.mktemp("runs") / "run" / "rank-0.journal"
    with JournalWriter(path) as journal:
        ends = [journal.append(tables) for tables in appended]
    frames = list(read_frames(path))
    assert [f.end for f in frames] == ends
    assert [f.skipped for f in frames] == [0] * len(ends)
    for frame, tables in zip(frames, appended, strict=True):
        assert list(frame.tables) == list(tables)
        for name, table in tables.items():
            assert_frame_equal(frame.tables[name], table)


def test_a_torn_tail_is_ignored_until_it_is_whole_at_every_byte(tmp_path):
    whole, torn = tmp_path / "whole.journal", tmp_path / "torn.journal"
    ends = write(whole, 1.0, 2.0, 3.0)
    data = whole.read_bytes()
    assert len(data) == ends[-1]
    with torn.open("wb", buffering=0) as file:
        for n in range(len(data) + 1):
            expected = [float(i + 1) for i, end in enumerate(ends) if end <= n]
            assert values(list(read_frames(torn))) == expected, f"at byte {n}"
            file.write(data[n : n + 1])


def test_reading_goes_on_from_any_frame_while_the_journal_grows(tmp_path):
    path = tmp_path / "rank-0.journal"
    seen, offset = [], 0
    with JournalWriter(path) as journal:
        for i in range(20):
            for j in range(i % 4):
                journal.append(scalars(float(10 * i + j)))
            for frame in read_frames(path, offset):
                seen += frame.tables["scalars"]["value"].to_list()
                offset = frame.end
    assert seen == values(list(read_frames(path)))
    assert len(seen) == sum(i % 4 for i in range(20))


def test_a_writer_that_comes_back_cuts_the_torn_tail_at_every_byte(tmp_path):
    path = tmp_path / "rank-0.journal"
    first, second = write(path, 1.0, 2.0)
    data = path.read_bytes()
    for n in (*range(40), *range(first, second, 7), second - 1):
        path.write_bytes(data[:n])
        write(path, 9.0)
        assert values(list(read_frames(path))) == ([1.0, 9.0] if n >= first else [9.0])
        assert sum(f.skipped for f in read_frames(path)) == 0


@pytest.mark.parametrize("where", ["mark", "length", "body"])
def test_a_damaged_frame_is_skipped_and_reported_with_the_next_one(tmp_path, where):
    path = tmp_path / "rank-0.journal"
    first, second, _ = write(path, 1.0, 2.0, 3.0)
    data = bytearray(path.read_bytes())
    data[first + {"mark": 2, "length": 10, "body": 60}[where]] ^= 0x40
    path.write_bytes(data)
    frames = list(read_frames(path))
    assert values(frames) == [1.0, 3.0]
    assert [f.skipped for f in frames] == [0, second - first]
    assert values(list(read_frames(path, first))) == [3.0]


def test_a_damaged_last_frame_waits_for_what_comes_after(tmp_path):
    path = tmp_path / "rank-0.journal"
    write(path, 1.0, 2.0)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert values(list(read_frames(path))) == [1.0]
    path.write_bytes(bytes(data) + b"\0" * 3_000_000)  # what a power cut may leave
    assert values(list(read_frames(path))) == [1.0]


def test_a_file_that_is_no_journal_is_said_to_be_none(tmp_path):
    path = tmp_path / "rank-0.journal"
    path.write_bytes(b"hello, I am a text file")
    with pytest.raises(StoreError, match=r"not a spikewatch journal.*Move it"):
        list(read_frames(path))
    with pytest.raises(StoreError, match="not a spikewatch journal"):
        JournalWriter(path)
    path.write_bytes(b"SPKWJNL7" + bytes(40))
    with pytest.raises(StoreError, match="Upgrade spikewatch"):
        list(read_frames(path))
    with pytest.raises(StoreError, match=r"No such file.*still exists"):
        list(read_frames(tmp_path / "nowhere"))


def test_two_journals_never_have_the_same_name_tag(tmp_path):
    write(tmp_path / "a", 1.0)
    write(tmp_path / "b", 1.0)
    assert journal_id(tmp_path / "a") != journal_id(tmp_path / "b")
    (tmp_path / "c").write_bytes((tmp_path / "a").read_bytes()[:20])
    assert journal_id(tmp_path / "c") is None


# -- the disk --------------------------------------------------------------------------------


def fill_until_it_fails(journal: JournalWriter) -> tuple[int, OSError]:
    end = 0
    for i in range(10_000):
        try:
            end = journal.append({"t": pl.DataFrame({"x": os.urandom(3000), "i": [i]})})
        except OSError as error:
            return end, error
    raise AssertionError("the disk never filled up")


def test_a_refused_write_leaves_the_journal_as_it_was_and_may_be_tried_again(tmp_path):
    path = tmp_path / "rank-0.journal"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with JournalWriter(path) as journal:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
            end, error = fill_until_it_fails(journal)
            assert error.errno == errno.EFBIG
            assert path.stat().st_size == end < 50_000
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            journal.append({"t": pl.DataFrame({"i": [-1]})})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    frames = list(read_frames(path))
    assert [f.tables["t"]["i"].item() for f in frames] == [*range(len(frames) - 1), -1]
    assert not any(f.skipped for f in frames)


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"Cannot write the journal.*SPIKEWATCH_DIR"):
        JournalWriter(tmp_path / "file" / "run" / "rank-0.journal")


def test_a_deleted_journal_is_noticed_by_its_writer(tmp_path):
    path = tmp_path / "run" / "rank-0.journal"
    with JournalWriter(path) as journal:
        path.unlink()
        with pytest.raises(FileNotFoundError, match="deleted"):
            journal.append(scalars(1.0))


def test_a_closed_journal_refuses_rows(tmp_path):
    journal = JournalWriter(tmp_path / "rank-0.journal")
    journal.close()
    journal.close()
    with pytest.raises(OSError, match="closed"):
        journal.append(scalars(1.0))


# -- the lock --------------------------------------------------------------------------------


def test_only_one_process_writes_a_journal(tmp_path):
    path = tmp_path / "rank-0.journal"
    code = (
        "import sys, pathlib; from spikewatch.journal import JournalWriter\n"
        "try: JournalWriter(pathlib.Path(sys.argv[1]))\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    with JournalWriter(path) as journal:
        journal.append(scalars(1.0))
        child = run_child(code, path)
        assert child.stdout.startswith("StoreError"), child
        assert "another process" in child.stdout
        journal.append(scalars(2.0))
    assert run_child(code, path).stdout == ""
    assert values(list(read_frames(path))) == [1.0, 2.0]


def test_a_run_is_being_written_until_its_writer_closes_it(tmp_path):
    path = tmp_path / "rank-0.journal"
    assert not is_being_written(path)
    with JournalWriter(path) as journal:
        for _ in range(3):
            assert is_being_written(path)
            # A reader in the same process that opens and closes the file must not free the lock.
            list(read_frames(path))
            journal.append(scalars(1.0))
        assert run_child(ASK, path).stdout.strip() == "True"
    assert not is_being_written(path)


ASK = (
    "import sys, pathlib; from spikewatch.journal import is_being_written\n"
    "print(is_being_written(pathlib.Path(sys.argv[1])))"
)

# A trainer with a forked data-loader worker and a started program, both of which outlive it.
FORKING_WRITER = """
import os, pathlib, subprocess, sys, time
from spikewatch.journal import JournalWriter
journal = JournalWriter(pathlib.Path(sys.argv[1]))
worker = os.fork()
if worker == 0:
    time.sleep(60)
    os._exit(0)
program = subprocess.Popen(["sleep", "60"], close_fds=False)
print(worker, program.pid, flush=True)
time.sleep(60)
"""


def test_workers_that_outlive_a_killed_trainer_do_not_keep_its_lock(tmp_path):
    path = tmp_path / "rank-0.journal"
    argv = [sys.executable, "-c", FORKING_WRITER, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as trainer:
        pids = [int(p) for p in trainer.stdout.readline().split()]
        try:
            assert is_being_written(path)
            trainer.kill()
            os.waitpid(trainer.pid, 0)
            # The worker lets go of the file when it first runs, which may be after the kill.
            deadline = time.monotonic() + 20
            while is_being_written(path):
                assert time.monotonic() < deadline
            assert all(Path(f"/proc/{p}").exists() for p in pids if Path("/proc").exists())
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)


def test_asking_whether_it_is_written_never_keeps_a_writer_out(tmp_path):
    path = tmp_path / "rank-0.journal"
    write(path, 1.0)
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            is_being_written(path)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for t in threads:
        t.start()
    try:
        for _ in range(30):
            write(path, 2.0)
    finally:
        done.set()
        for t in threads:
            t.join()
