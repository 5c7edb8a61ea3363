"""Whether goals are met, by figures made up for it."""

import pytest

from benchmarks.overhead.goals import MET, MISSED, NOT_MEASURED, times_cheaper, verdicts
from benchmarks.overhead.host_syncs import Syncs
from benchmarks.overhead.pairing import Costs
from benchmarks.overhead.row import Growth, Row


EVERY = {"conv": 1.15, "mlp": 1.5}


def row(training, watcher, ratio, *, high=None, mib=0.0, syncs=None):
    high = ratio if high is None else high
    found = Costs(
        step_ms=2.0,
        wall_ratio=ratio,
        wall_quartiles=(ratio, high),
        cpu_ratio=ratio,
        cpu_quartiles=(ratio, ratio),
        quiet_ratio=ratio,
        extra_ms=2.0 * (ratio - 1),
        observed_frac=1.0,
        n_rounds=2,
        n_steps=10,
    )
    growth = Growth(start_mib=90.0, mib=mib, n_steps=2000)
    return Row(training, watcher, costs=found, growth=growth, syncs=syncs)


def judge(*rows):
    return {v.goal: v for v in verdicts(rows, every_step_goals=EVERY)}


def state(word, *rows):
    (found,) = [v for goal, v in judge(*rows).items() if word in goal]
    return found.state


@pytest.mark.parametrize(
    ("ratio", "null_high", "expected"),
    [
        (1.009, 1.0, MET),
        (1.011, 1.0, MISSED),
        (1.029, 1.02, MET),  # within 1 % of what bare against bare shows
        (1.031, 1.02, MISSED),
        (1.011, 0.9, MISSED),  # a null below 1 does not make the goal harder, nor easier
        (1.009, 0.9, MET),
    ],
)
def test_defaults_are_judged_with_the_noise_of_bare_against_bare(ratio, null_high, expected):
    null = row("mlp", "nothing", 0.99, high=null_high)
    assert state("defaults ≤", null, row("mlp", "defaults", ratio)) == expected


def test_one_training_that_misses_makes_the_goal_missed_and_is_named():
    rows = [row("conv", "every-step", 1.2), row("mlp", "every-step", 1.4)]
    found = judge(*rows)
    assert found["every step ≤ 1.15 on conv"].state == MISSED
    assert "conv: 1.20" in found["every step ≤ 1.15 on conv"].detail
    assert found["every step ≤ 1.5 on mlp"].state == MET
    assert "goal: every step ≤ 1.5 on mlp: met" in str(found["every step ≤ 1.5 on mlp"])


def test_a_rival_has_to_cost_five_times_as_much():
    ours = row("mlp", "every-step", 1.1)
    assert state("wandb", ours, row("mlp", "wandb", 1.51)) == MET
    assert state("wandb", ours, row("mlp", "wandb", 1.49)) == MISSED
    assert state("tensorboard", ours, row("mlp", "tensorboard", 1.49)) == MISSED


def test_a_cost_within_the_noise_is_no_division_by_zero():
    assert times_cheaper(0.2, 1.0) == pytest.approx(5.0)
    assert times_cheaper(-0.01, 1.0) == pytest.approx(1000.0)  # 0.1 % is taken for it
    assert times_cheaper(0.0, 0.0) == 0.0


def test_the_monitor_that_keeps_everything_is_the_measure_within_the_noise():
    null, theirs = row("conv", "nothing", 1.0, high=1.01), row("conv", "sj-output", 1.05)
    assert state("sj-output", null, theirs, row("conv", "defaults", 1.055)) == MET
    assert state("sj-output", null, theirs, row("conv", "defaults", 1.065)) == MISSED
    faster_by_chance = row("conv", "sj-output", 0.97)
    assert state("sj-output", null, faster_by_chance, row("conv", "defaults", 1.005)) == MET
    assert state("sj-output", null, faster_by_chance, row("conv", "defaults", 1.015)) == MISSED


def test_memory_that_grows_is_a_goal_missed():
    assert state("memory", row("mlp", "defaults", 1.0, mib=3.0)) == MET
    assert state("memory", row("mlp", "every-step", 1.0, mib=30.0)) == MISSED
    assert state("memory", row("mlp", "sj-output", 1.0, mib=900.0)) == NOT_MEASURED


def test_what_was_not_measured_is_neither_met_nor_missed():
    assert {v.state for v in judge().values()} == {NOT_MEASURED}
    broken = Row("mlp", "wandb", status="not installed")
    assert state("wandb", row("mlp", "every-step", 1.1), broken) == NOT_MEASURED


def test_a_wait_for_the_gpu_that_bare_steps_do_not_have_is_a_goal_missed():
    bare, more = Syncs(3, 1, 0, 10), Syncs(4, 1, 9, 10)
    clean = {"bare": bare, "off-sample": bare, "sampled": bare}
    assert state("GPU", row("mlp", "every-step", 1.1, syncs=clean)) == MET
    assert state("GPU", row("mlp", "every-step", 1.1, syncs=clean | {"sampled": more})) == MISSED
    copies = clean | {"off-sample": Syncs(3, 2, 0, 10)}
    assert state("GPU", row("mlp", "every-step", 1.1, syncs=copies)) == MISSED
