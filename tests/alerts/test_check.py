import polars as pl
import pytest

from spikewatch.alerts.check import check_run
from spikewatch.alerts.engine import Engine
from spikewatch.alerts.loading import load_rules
from spikewatch.alerts.replay import replay
from spikewatch.alerts.rule import Rule
from spikewatch.errors import RuleError
from spikewatch.journal import JournalWriter
from spikewatch.metrics import RECORDS
from spikewatch.metrics.wide import widen
from spikewatch.paths import journal_path
from spikewatch.store import open_store


@pytest.fixture
def write(tmp_path):
    """Write steps as a training does: rows and the transitions that they cause, in one frame."""

    def write(run, *steps, rank=0, closed=True):
        engine = Engine(load_rules(), run=run, rank=rank)
        with JournalWriter(journal_path(tmp_path, run, rank)) as journal:
            for frames in steps:
                keys = [pl.lit(run).alias("run"), pl.lit(rank, dtype=pl.Int32).alias("rank")]
                mine = {n: f.with_columns(keys) for n, f in frames.items()}
                journal.append(mine | {"alerts": engine.feed(widen(mine))})
            if closed:
                row = dict.fromkeys(RECORDS["events"]) | {"run": run, "rank": rank}
                event = pl.DataFrame([row | {"kind": "closed"}], schema=RECORDS["events"])
                journal.append({"events": event})

    return write


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path) as store:
        yield store


SICK = {"n_dead": 50, "n_carrying": 50}


def test_a_healthy_run_exits_0_and_says_by_what(write, tables, store):
    write("good", tables(range(260)))
    verdict = check_run(store, "good")
    assert (verdict.exit_code, verdict.ok, verdict.fired.height) == (0, True, 0)
    n_rules = len(load_rules()) - 1
    said = f"run 'good': healthy by {n_rules} rules on 4 layers and 2 scalars"
    assert verdict.lines == (said,)


def test_an_alert_that_goes_on_exits_1_and_says_so(write, tables, store):
    write("bad", tables(range(40)), tables(range(42, 50), lif=SICK))
    verdict = check_run(store, "bad")
    assert (verdict.exit_code, verdict.ok) == (1, False)
    assert verdict.lines[0] == "run 'bad': 1 alert of severity warning or above"
    assert verdict.lines[1].startswith(
        "CRITICAL many-dead-neurons on 'lif' since step 42, still firing: More than 20 %"
    )
    assert verdict.fired.select("rule", "layer", "state", "since_step").rows() == [
        ("many-dead-neurons", "lif", "firing", 42)
    ]


def test_an_alert_that_is_over_exits_1_as_well(write, tables, store):
    write("was-bad", tables(range(50), lif=SICK), tables(range(50, 90)))
    verdict = check_run(store, "was-bad")
    assert verdict.exit_code == 1
    assert "since step 40, resolved at step 60: " in verdict.lines[1]


def test_only_the_asked_severity_counts_but_all_are_told(write, tables, store):
    write("warned", tables(range(50), lif={"n_dead": 10, "n_carrying": 90}))
    assert check_run(store, "warned", fail_on="info").exit_code == 1
    assert check_run(store, "warned", fail_on="warning").exit_code == 1
    verdict = check_run(store, "warned", fail_on="critical")
    assert verdict.exit_code == 0
    assert verdict.lines[1].startswith("WARNING dead-neurons on 'lif'")


def test_what_could_not_be_judged_is_not_called_ok(write, tables, store):
    write("short", tables(range(30), lif={"n_dead": None}))
    verdict = check_run(store, "short")
    assert verdict.exit_code == 0
    assert ("dead-layer", "lif") in verdict.unknown.select("rule", "layer").rows()
    assert "unknown dead-layer on 'lif': not enough evidence" in verdict.lines


def test_a_figure_that_can_never_come_is_not_called_a_lack_of_evidence(write, tables, store):
    gone = {"n_grad": None, "sum_sq_grad": None, "n_nonfinite_grad": None, "n_grad_deepest": None}
    write("no-graph", tables(range(30), lif=gone | {"sum_sq_grad_deepest": None}))
    verdict = check_run(store, "no-graph")
    assert verdict.exit_code == 0
    (line,) = (x for x in verdict.lines if x.startswith("not applicable on 'lif'"))
    assert "vanished-gradient" in line
    assert "grad_norm" in line
    assert "vanished-gradient" not in verdict.unknown["rule"].to_list()


def test_what_follows_from_another_alert_is_folded_under_it(write, tables, store):
    nan = {"lif": {"n_nonfinite_spikes": 1}, "loss": {"value": float("nan")}}
    write("nan", tables(range(5)), tables(range(5, 20), **nan))
    verdict = check_run(store, "nan")
    assert verdict.lines[0].endswith("1 alert of severity warning or above, and 1 that follows")
    assert verdict.roots.select("rule", "layer", "n_following").rows() == [
        ("non-finite-spikes", "lif", 1)
    ]
    assert verdict.lines[2] == "  + 1 that follows from it: non-finite-value on 'loss'"


def test_the_state_of_the_run_is_told(write, tables, store):
    write("killed", tables(range(30)), closed=False)
    assert check_run(store, "killed").lines[0].endswith("(killed)")


def test_a_run_that_is_not_there_exits_2_and_names_those_that_are(write, tables, store):
    assert "nor any other" in check_run(store, "x").lines[0]
    write("night-run", tables(range(1)))
    verdict = check_run(store, "nigth-run")
    assert verdict.exit_code == 2
    assert "Did you mean 'night-run'?" in verdict.lines[0]
    assert verdict.fired.is_empty()


def test_a_run_in_which_no_layer_was_seen_exits_2(write, tables, store):
    write("blind", {"scalars": tables(range(5))["scalars"]})
    verdict = check_run(store, "blind")
    assert verdict.exit_code == 2
    assert "no layer was ever observed" in verdict.lines[0]


def test_a_wrong_severity_is_misuse(store):
    with pytest.raises(RuleError, match="fail_on"):
        check_run(store, "x", fail_on="fatal")


def test_other_rules_judge_the_history(write, tables, store, tmp_path):
    write("good", tables(range(30)))
    strict = Rule(name="strict", expr="mfr < 0.2", layers=("lif",))
    verdict = check_run(store, "good", rules=[strict])
    assert verdict.exit_code == 1
    assert verdict.lines[1].startswith("WARNING strict on 'lif' since step 0, still firing")
    path = tmp_path / "muted.toml"
    path.write_text('mute = ["dead-neurons"]\n')
    assert check_run(store, "good", rules=path).exit_code == 0


def test_replay_equals_what_fired_live(write, tables, store):
    ill = {"lif": SICK, "tern": {"amplitude_max": float("nan")}, "loss": {"value": float("inf")}}
    steps = [tables(range(s, s + 3), **(ill if 4 < s % 20 < 18 else {})) for s in range(30, 90, 3)]
    write("run", *steps, rank=0)
    write("run", *steps[::2], rank=1)
    key = ["rank", "step", "rule", "layer"]
    live = store.sql("SELECT * FROM alerts").sort(key)
    again = replay(store, "run", load_rules()).alerts.sort(key)
    assert live.height > 100
    assert again.equals(live)


def test_replay_of_an_empty_history_is_empty(store):
    assert replay(store, "x", load_rules()).alerts.is_empty()
