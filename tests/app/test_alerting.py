from datetime import datetime

import polars as pl

from spikewatch.alerts.loading import load_rules
from spikewatch.app.alerting import firing, metric_text, spans, threshold_of
from spikewatch.metrics import RECORDS


def alerts(*rows):
    base = {
        "run": "r", "rank": 0, "phase": "train", "at": datetime(2026, 1, 1), "layer": "lif1",
        "rule": "dead", "severity": "warning", "metric": "dead_frac", "value": 0.25,
        "summary": "s", "likely": "l", "advice": "a",
        "root_rule": None, "root_layer": None, "n_following": None,
    }  # fmt: skip
    return pl.DataFrame([base | row for row in rows], schema=RECORDS["alerts"])


def step(number, state, since=None, **more):
    return {"step": number, "state": state, "since_step": since} | more


def test_a_pending_spell_that_led_to_firing_is_part_of_its_bar():
    rows = alerts(step(10, "pending", 10), step(15, "firing", 10), step(30, "resolved", 10))
    (bar,) = spans(rows, last_step=99).rows(named=True)
    assert (bar["begin"], bar["end"], bar["state"]) == (10, 30, "resolved")
    assert bar["value_text"] == "dead_frac 25.0 %"


def test_what_still_fires_reaches_to_the_latest_step():
    (bar,) = spans(alerts(step(15, "firing", 10)), last_step=99).rows(named=True)
    assert (bar["end"], bar["state"]) == (99, "firing")


def test_a_rule_that_was_only_pending_has_a_bar_of_its_own():
    rows = alerts(step(10, "pending", 10), step(12, "ok"))
    (bar,) = spans(rows, last_step=99).rows(named=True)
    assert (bar["begin"], bar["end"], bar["state"]) == (10, 12, "pending")


def test_ok_and_unknown_draw_nothing():
    assert spans(alerts(step(0, "unknown"), step(5, "ok")), last_step=9).is_empty()


def test_only_the_last_transition_says_what_fires_now_and_the_worst_comes_first():
    rows = alerts(
        step(1, "firing", 1),
        step(2, "firing", 2, layer="lif2"),
        step(3, "firing", 3, layer="lif3", severity="critical"),
        step(9, "resolved", 1),
    )
    assert firing(rows)["layer"].to_list() == ["lif3", "lif2"]


FOLDED = {"root_rule": "dead", "root_layer": "lif1"}


def test_what_follows_from_another_alert_is_counted_with_its_root():
    rows = alerts(
        step(1, "firing", 1),
        step(2, "firing", 2, layer="lif2"),
        step(3, "firing", 2, layer="lif2", **FOLDED),
        step(3, "firing", 3, layer="lif3", **FOLDED),
    )
    assert firing(rows).select("layer", "n_following").rows() == [("lif1", 2)]


def test_another_root_is_no_new_bar():
    rows = alerts(step(2, "firing", 1), step(5, "firing", 1, **FOLDED), step(9, "resolved", 1))
    (bar,) = spans(rows, last_step=99).rows(named=True)
    assert (bar["begin"], bar["end"], bar["state"]) == (1, 9, "resolved")


def test_the_colours_of_dead_neurons_start_where_a_shipped_rule_does():
    threshold = threshold_of("dead_frac")
    assert threshold is not None
    assert any("dead_frac" in r.expr and str(threshold) in r.expr for r in load_rules(None))
    assert threshold_of("no_such_metric") is None


def test_fractions_are_shown_in_percent_and_other_figures_are_not():
    assert metric_text("dead_frac", 0.0512) == "5.1 %"
    assert metric_text("grad_norm", 0.00123456) == "0.00123"
    assert metric_text("dead_frac", None) == "–"
