import contextlib
import logging
import threading

import polars as pl
import pytest

from spikewatch.alerts import actions
from spikewatch.alerts.actions import Dispatcher
from spikewatch.alerts.rule import Rule
from spikewatch.errors import AlertRaised
from spikewatch.metrics import RECORDS


@pytest.fixture
def make():
    def make(*does: str, **more) -> Dispatcher:
        rule = Rule(name="dead-neurons", expr="dead_frac > 0.05", actions=does)
        return Dispatcher([rule], **more)

    return make


@pytest.fixture
def rows(alert):
    def rows(*changed: dict) -> pl.DataFrame:
        return pl.DataFrame([alert(**c) for c in changed], schema=RECORDS["alerts"])

    return rows


@pytest.fixture
def without_logging(monkeypatch):
    """Be a program that has set up no logging; pytest has, and anew before the test is called."""

    def be(level=logging.NOTSET):
        logger = logging.getLogger("spikewatch")
        monkeypatch.setattr(logger, "propagate", False)
        monkeypatch.setattr(logger, "handlers", [])
        logger.setLevel(level)

    yield be
    logging.getLogger("spikewatch").setLevel(logging.NOTSET)


def test_firing_and_its_end_are_on_stderr_and_nothing_else_is(make, rows, capsys, without_logging):
    without_logging()
    states = ("unknown", "ok", "pending", "firing", "no-data", "resolved")
    make("log").handle(rows(*({"state": s, "severity": "info"} for s in states)))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("spikewatch INFO dead-neurons firing on 'lif1'")
    assert second.startswith("spikewatch resolved dead-neurons")


def test_who_raises_the_level_of_the_logger_sees_less(make, rows, capsys, without_logging):
    without_logging(logging.ERROR)
    two = rows({"severity": "warning"}, {"severity": "critical", "layer": "b"})
    make("log").handle(two)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_program_with_logging_gets_a_record_and_no_second_line(make, rows, caplog, capsys):
    make("log").handle(rows({}))
    assert [r.levelname for r in caplog.records] == ["CRITICAL"]
    assert not capsys.readouterr().err


def test_a_rule_without_log_prints_nothing(make, rows, caplog):
    make("stop").handle(rows({}))
    assert not caplog.records


def tell(dispatcher, frame):
    """Hand rows over, and wait until the callback has been called."""
    dispatcher.handle(frame)
    dispatcher.close()


def test_the_callback_gets_firing_and_resolved_as_dicts(make, rows):
    seen = []
    states = rows({"state": "pending"}, {"state": "firing"}, {"state": "resolved"})
    tell(make("callback", on_alert=seen.append), states)
    assert [row["state"] for row in seen] == ["firing", "resolved"]
    assert seen[0].keys() == RECORDS["alerts"].keys()


FOLDED = {"root_rule": "dead-layer", "root_layer": "lif0", "n_following": None}


def test_what_follows_from_another_alert_is_not_told_and_its_end_neither(make, rows, caplog):
    seen = []
    dispatcher = make("log", "callback", on_alert=seen.append)
    tell(dispatcher, rows(FOLDED, {"state": "resolved"} | FOLDED))
    assert not seen
    assert not caplog.records


def test_what_was_told_is_not_told_again_when_its_root_goes_and_its_end_is(make, rows):
    seen = []
    dispatcher = make("callback", on_alert=seen.append)
    tell(dispatcher, rows({}, FOLDED, {}, {"state": "resolved"} | FOLDED))
    assert [row["state"] for row in seen] == ["firing", "resolved"]


def test_what_was_folded_is_told_when_it_stands_alone(make, rows):
    seen = []
    tell(make("callback", on_alert=seen.append), rows(FOLDED, {}))
    assert [row["root_rule"] for row in seen] == [None]


def test_a_folded_alert_may_still_stop_the_training_once(make, rows):
    dispatcher = make("stop", "raise")
    dispatcher.handle(rows(FOLDED))
    assert dispatcher.should_stop
    with pytest.raises(AlertRaised, match="follows from dead-layer on 'lif0'"):
        dispatcher.act()
    dispatcher.handle(rows({}))
    dispatcher.act()


def test_a_callback_that_fails_is_told_once_and_called_again(make, rows, caplog):
    seen = []

    def fail(row):
        seen.append(row)
        raise ValueError("no network")

    tell(make("callback", on_alert=fail), rows({"layer": "a"}, {"layer": "b"}, {"layer": "c"}))
    assert len(seen) == 3
    assert [r.getMessage() for r in caplog.records] == [
        "spikewatch: on_alert failed on 'dead-neurons' (ValueError: no network). Training goes on; "
        "further failures are not reported."
    ]


def test_a_callback_that_hangs_holds_up_no_other_action_and_is_told(make, rows, monkeypatch):
    monkeypatch.setattr(actions, "_CLOSE_S", 0.2)
    called, go_on, troubles = threading.Event(), threading.Event(), []

    def hang(row):
        called.set()
        go_on.wait(20)

    dispatcher = make("callback", "stop", on_alert=hang)
    dispatcher.on_trouble = troubles.append
    dispatcher.handle(rows({"layer": "a"}, {"layer": "b"}))
    assert dispatcher.should_stop
    assert called.wait(10)
    dispatcher.close()
    assert troubles == ["on_alert did not return in time; 1 more alert waited for it"]
    go_on.set()


def test_stop_sets_the_flag_when_it_fires_and_keeps_it(make, rows):
    dispatcher = make("stop")
    dispatcher.handle(rows({"state": "pending"}))
    assert not dispatcher.should_stop
    dispatcher.handle(rows({"state": "firing"}))
    dispatcher.handle(rows({"state": "resolved"}))
    assert dispatcher.should_stop
    dispatcher.act()


def test_raise_hands_over_the_first_error_until_it_is_taken(make, rows):
    dispatcher = make("raise")
    dispatcher.handle(rows({"layer": "a"}, {"layer": "b"}))
    with pytest.raises(AlertRaised, match="firing on 'a'"):
        dispatcher.act()
    dispatcher.act()
    dispatcher.handle(rows({"layer": "c"}))
    with pytest.raises(AlertRaised, match="firing on 'c'"):
        dispatcher.act()


@pytest.mark.parametrize(("severity", "raised"), [("warning", False), ("critical", True)])
def test_raise_on_alert_is_for_critical_alerts(make, rows, severity, raised):
    dispatcher = make(raise_on_alert=True)
    dispatcher.handle(rows({"severity": severity}))
    with pytest.raises(AlertRaised) if raised else contextlib.nullcontext():
        dispatcher.act()


def test_checkpoint_is_called_in_the_training_thread_and_its_failure_hurts_nothing(
    make, rows, caplog
):
    seen = []

    def save(alert):
        seen.append(alert["layer"])
        raise OSError("disk full")

    dispatcher = make("checkpoint", on_checkpoint=save)
    dispatcher.handle(rows({"layer": "a"}))
    assert not seen
    dispatcher.act()
    dispatcher.act()
    assert seen == ["a"]
    assert "on_checkpoint failed" in caplog.text


def test_a_rule_that_cannot_be_evaluated_is_told(make, rows, caplog):
    make("stop").handle(rows({"state": "error", "summary": "The rule cannot be evaluated: x"}))
    assert "rule 'dead-neurons': The rule cannot be evaluated: x" in caplog.text
