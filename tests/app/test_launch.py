import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from spikewatch.app import launch
from spikewatch.app.words import age, escape


def test_the_command_listens_on_this_machine_and_asks_nobody_for_usage_figures(capsys):
    argv = launch.command(Path("runs"), port=8765, host="127.0.0.1")
    assert argv[:4] == [sys.executable, "-m", "streamlit", "run"]
    assert Path(argv[4]).name == "asgi.py"
    assert {"--server.address=127.0.0.1", "--server.port=8765"} <= set(argv)
    assert "--browser.gatherUsageStats=false" in argv
    assert capsys.readouterr().err == ""


def test_the_runs_folder_is_not_in_the_argv_because_it_may_hold_a_password():
    argv = launch.command(Path("ducklake:postgres:password=hunter2"), port=1, host="localhost")
    assert "hunter2" not in " ".join(argv)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "lab-machine"])
def test_an_address_that_others_can_reach_is_warned_of(host, capsys):
    argv = launch.command(Path("runs"), port=8501, host=host)
    said = capsys.readouterr().err
    assert host in said
    assert "password" in said
    assert "ssh -L 8501" in said
    assert f"--server.address={host}" in argv


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"])
def test_loopback_is_known_in_all_its_spellings(host):
    assert launch.is_loopback(host)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-2, "0 s"), (3, "3 s"), (59, "59 s"), (240, "4 min"), (7200, "2 h"), (5 * 86400, "5 d")],
)
def test_the_age_of_a_row_is_told_in_the_unit_that_fits(seconds, text):
    now = datetime(2026, 1, 10)
    assert age(now - timedelta(seconds=seconds), now=now) == text
    assert age(None) == "–"


def test_names_that_users_choose_are_never_markup():
    assert escape("a_b*[x](http://e)") == r"a\_b\*\[x\]\(http\://e\)"
