"""What a run stored; and nothing of ours fails in silence."""

import pytest

import spikewatch


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPIKEWATCH_ON_ERROR", "raise")


@pytest.fixture(name="asked")
def _asked(tmp_path):
    """Rows of an SQL query over the runs of this test."""

    def asked(query):
        with spikewatch.open_store(tmp_path / "spikewatch-runs") as store:
            return store.sql(query).rows()

    return asked


@pytest.fixture(name="states")
def _states(tmp_path):
    """Names and states of the runs of this test."""

    def states():
        with spikewatch.open_store(tmp_path / "spikewatch-runs") as store:
            runs = store.runs().sort("run")
            return list(zip(runs["run"], runs["state"], strict=True))

    return states
