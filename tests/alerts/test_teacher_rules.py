"""Rules about a student and its teacher, at the pace at which their figures come in."""

import polars as pl
import pytest

from spikewatch.alerts.engine import Engine
from spikewatch.alerts.loading import load_rules


EPOCH = 22  # steps
COMPARED = [*range(8), *range(15, 400, 16)]  # steps with the dear readings, of a first few hundred


def transitions(rows):
    engine = Engine(load_rules(), run="r", rank=0)
    engine.place([("lif", 0, "spiking"), ("fc", 1, "ternary")])
    return engine.feed(rows)


def fired(rows):
    out = transitions(rows).filter(state="firing")
    return [(r["rule"], r["step"]) for r in out.unique("rule", maintain_order=True).to_dicts()]


def gaps(wide, figures, *, first_step):
    steps = [first_step + EPOCH * i for i in range(len(figures))]
    rows = wide(range(max(steps) + 1)).filter(
        pl.col("layer") == "accuracy_gap", pl.col("step").is_in(steps)
    )
    return rows.with_columns(value=pl.Series(figures))


def distances(wide, of_step):
    """What is observed of a teacher: its distance in nats, by step."""
    frames = [
        wide(range(s, s + 1), teacher={"n_compared": 64, "sum_kl": 64.0 * of_step(s)})
        for s in COMPARED
    ]
    return pl.concat(frames).filter(layer="teacher")


def test_a_gap_that_swings_around_ten_points_is_told(wide):
    found = fired(gaps(wide, [0.08, 0.15, 0.08, 0.15, 0.08], first_step=198))
    assert found == [("accuracy-gap", 220)]


@pytest.mark.parametrize(("gap", "rule"), [(0.05, "accuracy-gap"), (0.3, "wide-accuracy-gap")])
def test_a_gap_is_told_at_the_second_figure_and_a_single_one_is_not(wide, gap, rule):
    assert fired(gaps(wide, [0.0, gap, gap], first_step=198)) == [(rule, 242)]
    assert not fired(gaps(wide, [0.0, gap, 0.0, gap, 0.0], first_step=198))


def test_a_student_that_moves_away_from_the_start_is_told_within_100_steps_of_its_warm_up(wide):
    ((rule, step),) = fired(distances(wide, lambda step: 10 + 0.01 * step**2))
    assert rule == "leaves-its-teacher"
    assert step <= 120


def test_a_student_that_has_come_near_and_leaves_late_is_told(wide):
    found = fired(distances(wide, lambda step: 0.15 if step < 250 else 0.15 + 0.01 * (step - 250)))
    assert [rule for rule, _ in found] == ["leaves-its-teacher"]


def test_a_student_that_comes_nearer_by_and_by_is_well(wide):
    assert not fired(distances(wide, lambda step: 0.1 + 5 * 0.97**step * (1 + 0.3 * (step % 3))))


def test_a_gap_follows_from_leaving_the_teacher(wide):
    away = distances(wide, lambda step: 10 + 0.01 * step**2)
    rows = pl.concat([away, gaps(wide, [0.3] * 5, first_step=198)]).sort("step")
    out = transitions(rows).filter(pl.col("root_rule").is_null(), state="firing")
    assert out["rule"].to_list() == ["leaves-its-teacher"]
