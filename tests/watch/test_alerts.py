"""Alerts of a running training: the callback, the flag, the exception."""

import pytest

import spikewatch
from spikewatch.alerts.rule import Rule

from .conftest import train


HIGH = Rule(name="anything", expr="mfr >= 0", severity="critical", actions=("callback", "stop"))


def until(condition, net, watch):
    for _ in range(400):
        train(net, n_steps=5, watch=watch)
        if condition():
            return
    raise AssertionError("no alert in 2000 steps")


def test_a_callback_gets_the_alert_and_training_is_asked_to_stop(net, tmp_path):
    heard = []
    with spikewatch.attach(
        net, dir=tmp_path, every=1, quiet=True, rules=[HIGH], on_alert=heard.append
    ) as watch:
        assert not watch.should_stop
        until(lambda: watch.should_stop, net, watch)
    assert {(a["rule"], a["state"], a["layer"]) for a in heard} == {
        ("anything", "firing", "lif1"),
        ("anything", "firing", "lif2"),
    }


def test_who_asks_for_it_gets_an_exception_in_the_training_loop(net, tmp_path):
    with (
        pytest.raises(spikewatch.AlertRaised, match="anything"),
        spikewatch.attach(
            net, dir=tmp_path, every=1, quiet=True, rules=[HIGH], raise_on_alert=True
        ) as watch,
    ):
        until(lambda: False, net, watch)
    with spikewatch.open_store(tmp_path) as store:
        assert store.runs()["state"].to_list() == ["failed"]
        fired = store.sql("SELECT count(*) AS n FROM alerts WHERE state = 'firing'")
    assert fired["n"].item() == 2


def test_a_callback_that_fails_is_told_once_and_hurts_nothing(net, tmp_path, caplog):
    def broken(alert):
        raise OSError("no network")

    with spikewatch.attach(
        net, dir=tmp_path, every=1, quiet=True, rules=[HIGH], on_alert=broken
    ) as watch:
        until(lambda: watch.should_stop, net, watch)
    assert sum("no network" in record.message for record in caplog.records) == 1


def test_rows_are_kept_when_the_rules_fail(net, tmp_path, caplog):
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True) as watch:
        watch._recorder._engine = None
        train(net, n_steps=3)
    assert any("rules could not be evaluated" in record.message for record in caplog.records)
    with spikewatch.open_store(tmp_path) as store:
        assert store.sql("SELECT count(*) AS n FROM spikes")["n"].item() == 6
