"""`python -m benchmarks.detection`: a short run, and its figures by hand."""

import json

import pytest

import spikewatch
from benchmarks.detection.catalogue import BENCH_SEEDS, ILLNESSES, TUNING_SEEDS, choose
from benchmarks.detection.command import main
from benchmarks.detection.illness import Illness
from benchmarks.detection.running import Record, Told, train
from benchmarks.detection.scoring import MET, MISSED, NOT_MEASURED, case_of, goals, healthy_of
from spikewatch.alerts.loading import load_rules


PLANTED = Illness(
    name="planted",
    story="a layer dies",
    rule="dead-layer",
    also=("low-rate",),
    bed="digits",
    layers=("lif*",),
    strike=lambda _: None,
    onset=20,
)


def alert(rule, layer, step, *, told=True, severity="critical", stays=True):
    return Told(rule, layer, severity, step, step if told else None, stays)


def record(*alerts, illness="planted", n=1000):
    return Record("digits", 0, illness, 100, n, alerts)


@pytest.mark.slow
def test_a_short_run_finds_all_and_leaves_the_healthy_alone(tmp_path, capsys):
    path = tmp_path / "found.json"
    assert main(["--short", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert all(case["steps_to_alert"] is not None for case in found["cases"])
    assert all(case["right_cause"] for case in found["cases"])
    assert [twin["alerts"] for twin in found["twins"]] == [[]] * len(found["twins"])
    assert capsys.readouterr().out.splitlines()[-1] == "detection: 0 of 4 goals missed"


def test_an_illness_is_found_by_its_rule_on_an_ill_layer_after_its_onset():
    before, elsewhere = alert("dead-layer", "lif1", 19), alert("dead-layer", "out", 22)
    assert case_of(PLANTED, record(before, elsewhere)).steps_to_alert is None
    found = case_of(PLANTED, record(before, elsewhere, alert("dead-layer", "lif1", 27)))
    assert found.steps_to_alert == 7
    assert (found.right_layer, found.right_cause, found.first) == (
        False,
        False,
        ("dead-layer on out",),
    )


def test_another_word_for_the_cause_is_right_and_another_cause_is_not():
    hit = alert("dead-layer", "lif1", 30)
    named = case_of(PLANTED, record(alert("low-rate", "lif1", 25), hit))
    assert (named.right_cause, named.steps_to_first, named.steps_to_alert) == (True, 5, 10)
    other = case_of(PLANTED, record(alert("high-rate", "lif1", 25), hit))
    assert (other.right_layer, other.right_cause) == (True, False)


def test_what_is_folded_is_found_but_not_told():
    folded = alert("low-rate", "lif2", 22, told=False, stays=False)
    case = case_of(PLANTED, record(folded, alert("dead-layer", "lif1", 24)))
    assert (case.steps_to_first, case.n_told, case.n_in_verdict) == (4, 1, 1)


def test_false_alarms_are_counted_by_a_thousand_layer_windows():
    healthy = healthy_of([
        record(alert("low-rate", "lif1", 3, severity="warning"), illness=None, n=1500),
        record(illness=None, n=500),
    ])  # fmt: skip
    assert (healthy.n_runs, healthy.n_silent, healthy.n_layer_windows) == (2, 1, 2000)
    assert healthy.per_1000("warning") == pytest.approx(0.5)
    states = [goal.state for goal in goals([], healthy)]
    assert states == [NOT_MEASURED, MET, MET, NOT_MEASURED]
    cry = healthy_of([record(alert("dead-layer", "lif1", 3), illness=None, n=1)])
    assert goals([], cry)[1].state == MISSED


def test_one_miss_in_a_hundred_is_a_recall_that_is_missed():
    found = case_of(PLANTED, record(alert("dead-layer", "lif1", 30)))
    missed = case_of(PLANTED, record())
    recall, _, _, cause = goals([found] * 99 + [missed], healthy_of([]))
    assert (recall.state, cause.state) == (MISSED, MET)


def test_seeds_for_tuning_are_not_those_of_the_figures():
    assert not set(TUNING_SEEDS) & set(BENCH_SEEDS)


def test_each_rule_has_an_illness():
    rules = {rule.name for rule in load_rules()}
    assert {illness.rule for illness in ILLNESSES} == rules
    assert {name for illness in ILLNESSES for name in illness.also} <= rules
    assert len({illness.name for illness in ILLNESSES}) == len(ILLNESSES)


def test_a_teacher_is_watched_with_its_student(tmp_path):
    train("distilled-twn", TUNING_SEEDS[0], 24, folder=tmp_path)
    with spikewatch.open_store(tmp_path) as store:
        n, gap = store.sql(
            "SELECT count(kd_gap), max(value) FILTER (layer = 'accuracy_gap') FROM wide"
        ).row(0)
    assert n >= 8
    assert 0 < gap < 0.5


def test_illnesses_are_picked_by_name_rule_or_training():
    assert [i.name for i in choose(["detached"])] == ["detached"]
    assert {i.rule for i in choose(["non-finite-*"])} >= {"non-finite-weights"}
    assert {i.bed for i in choose(["text"])} == {"text"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "dead-laier"], "did you mean 'dead-layer'?"),
        (["--seeds", "0"], "--seeds was 0; give 1 to 10"),
        (["--long", "99"], "--long was 99; give 0 to 10"),
        (["--json", "nowhere/at/all.json"], "there is no folder nowhere/at"),
    ],
)
def test_misuse_is_said_before_anything_is_trained(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_the_list_names_every_illness(capsys):
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {illness.name} " in listed for illness in ILLNESSES)
