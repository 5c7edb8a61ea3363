"""A reader knows at once that a journal grew."""

import shutil
import sys
import threading
import time

import pytest

from spikewatch.journal import JournalWriter
from spikewatch.store.follow import Follower


@pytest.fixture(params=["watchdog", "looking"])
def follower(tmp_path, request, monkeypatch):
    if request.param == "looking":
        monkeypatch.setitem(sys.modules, "watchdog.events", None)  # as if it were not installed
    with Follower(tmp_path) as opened:
        yield opened


def test_a_change_ends_the_wait_at_once(follower, write, step_tables):
    begun = time.monotonic()
    writer = threading.Thread(target=write, args=(step_tables(0),))
    writer.start()
    assert follower.wait(20)
    assert time.monotonic() - begun < 5
    writer.join()
    while follower.wait(0):
        pass


def test_each_change_counts_once(follower, tmp_path, write, step_tables):
    write(step_tables(0))
    assert follower.wait(5)
    assert not follower.wait(0)
    with JournalWriter(tmp_path / "r" / "rank-0.journal") as journal:
        journal.append(step_tables(1))
    assert follower.wait(5)
    shutil.rmtree(tmp_path / "r")
    assert follower.wait(5)
    assert not follower.wait(0)


def test_other_files_are_no_news(follower, tmp_path):
    (tmp_path / "spikewatch.duckdb").write_text("x")
    assert not follower.wait(0.2)
