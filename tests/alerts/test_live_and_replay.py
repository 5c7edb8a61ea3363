"""A real training: what fired while it ran is what replay says of it."""

import subprocess
import sys

import polars as pl
import pytest
import torch

import spikewatch
from spikewatch.alerts.check import alerts_of, check_run
from spikewatch.alerts.engine import Engine
from spikewatch.alerts.loading import find_ruleset
from spikewatch.alerts.replay import replay
from spikewatch.alerts.rule import Rule
from spikewatch.alerts.verdict import judge
from spikewatch.ills import ILLS
from spikewatch.zoo.digits import load_digits
from spikewatch.zoo.training import Training


RULES = """
[[rule]]
name = "drifts"
expr = "ABS(mfr - baseline(mfr, 5)) > 0.1 * baseline(mfr, 5)"
for = 2
follows.before = ["drifts", "dead-layer"]

[[rule]]
name = "loss-rises"
expr = "slope(value, 8) > 0"
layers = ["loss"]

[[rule]]
name = "never"
expr = "amplitude_max > 3"
layers = ["no-such-layer*"]
"""


@pytest.fixture(scope="module", name="trained")
def _trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    rules = folder / "rules.toml"
    rules.write_text(RULES, "utf-8")
    torch.manual_seed(0)
    training = Training.healthy()
    ILLS["dead-neurons"].plant(training)
    with spikewatch.attach(
        training.net, run="x", dir=folder, every=1, quiet=True, rules=rules
    ) as watch:
        for result, _ in zip(training.fit(*load_digits(), seed=0), range(60), strict=False):
            watch.log(**result)
    with spikewatch.open_store(folder) as store:
        yield store, rules


KEY = ["phase", "step", "rule", "layer", "state"]


def test_replay_says_what_fired_live_with_roots_and_history_functions(trained):
    store, rules = trained
    live = alerts_of(store, "x").sort(KEY)
    again = replay(store, "x", find_ruleset(rules).rules).alerts.sort(KEY)
    assert again.equals(live)
    assert {"drifts", "loss-rises", "dead-layer"} <= set(live.filter(state="firing")["rule"])
    assert live["root_rule"].null_count() < live.height


KILLED = """
import os, signal, sys, torch, spikewatch
from spikewatch.zoo.digits import load_digits
from spikewatch.zoo.training import Training
torch.manual_seed(0)
training = Training.healthy()
watch = spikewatch.attach(
    training.net, run="x", dir=sys.argv[1], every=1, quiet=True, rules=sys.argv[2]
)
for result in training.fit(*load_digits(), seed=0):
    watch.log(**result)
    if os.path.getsize(sys.argv[1] + "/x/rank-0.journal") > 300_000:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_replay_of_a_killed_run_says_what_fired_and_what_its_last_step_makes_of_it(tmp_path):
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES, "utf-8")
    subprocess.run([sys.executable, "-c", KILLED, tmp_path, rules], stderr=subprocess.DEVNULL)
    with spikewatch.open_store(tmp_path) as store:
        assert store.runs()["state"].to_list() == ["lost"]
        live = alerts_of(store, "x").sort(KEY)
        again = replay(store, "x", find_ruleset(rules).rules).alerts.sort(KEY)
        last = store.sql("SELECT max(step) AS step FROM wide")["step"].item()
    assert live.height > 50
    assert live["step"].max() < last
    assert again.filter(pl.col("step") < last).equals(live)


def test_a_dead_layer_is_named_once_and_the_rest_is_folded(trained):
    store, _ = trained
    verdict = check_run(store, "x")
    assert "dead-layer" in verdict.roots["rule"].to_list()
    assert verdict.fired.height > verdict.roots.height
    (below,) = (x for x in verdict.lines if " from it: " in x and "ternary_spike" in x)
    assert below.startswith("  + ")


def test_a_rule_on_what_never_came_is_told_at_close_and_by_replay(trained):
    store, rules = trained
    notes = store.sql("SELECT message FROM events WHERE kind = 'note'")["message"].to_list()
    expected = (
        "rule 'never' was never judged: no amplitude_max of a layer that no-such-layer* matches"
    )
    assert any(note.startswith(expected) for note in notes)
    assert replay(store, "x", find_ruleset(rules).rules).never_judged[0].startswith(expected)


def test_a_rule_about_silence_is_not_missed_where_there_was_none(wide):
    rules = [Rule(name="still", expr="silent_s > 60"), Rule(name="never", expr="delta > 1")]
    engine = Engine(rules, run="r", rank=0)
    engine.feed(wide(range(2)).filter(layer="lif"))
    assert [note.split("'")[1] for note in engine.never_judged()] == ["never"]


def test_a_rule_that_breaks_on_a_row_gets_the_state_error_and_the_others_go_on(wide, monkeypatch):
    # No expression is known that passes the checks and breaks later: so without that check.
    monkeypatch.setattr("spikewatch.alerts.engine.check_agreement", list)
    breaks = Rule(name="breaks", expr="mfr >= 0 AND REGEXP_LIKE(layer, layer)")
    works = Rule(name="works", expr="mfr >= 0", layers=("a(",))
    engine = Engine([breaks, works], run="r", rank=0)
    rows = wide(range(2)).with_columns(layer=pl.lit("a("))
    first, second = engine.feed(rows.head(1)), engine.feed(rows.tail(1))
    assert first.select("rule", "state").rows() == [("breaks", "error"), ("works", "firing")]
    assert "cannot be evaluated" in first["summary"][0]
    assert second.filter(rule="breaks").is_empty()


def test_forgotten_schemas_are_no_trouble(trained):
    """What an older run stored has no roots: it is judged all the same."""
    store, _ = trained
    old = alerts_of(store, "x").with_columns(
        pl.lit(None, pl.String).alias("root_rule"), pl.lit(None, pl.String).alias("root_layer")
    )
    assert judge("x", old, fail_on="warning", state="finished").exit_code == 1
