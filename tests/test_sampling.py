"""Which steps are observed."""

import itertools

import pytest
from hypothesis import given, strategies as st

from spikewatch.errors import AttachError
from spikewatch.sampling import Budget, make_sampler


def test_a_fixed_interval_begins_with_step_0():
    sampler = make_sampler(3)
    assert [s for s in range(8) if sampler.observe(s)] == [0, 3, 6]


@pytest.mark.parametrize("every", [0, -1, 1.5, "often", True, None])
def test_a_wrong_interval_is_refused_with_what_may_stand_there(every):
    with pytest.raises(AttachError, match="whole number of steps"):
        make_sampler(every)


@given(step_s=st.floats(1e-4, 1.0), cost_s=st.floats(1e-5, 1.0))
def test_the_budget_holds_whatever_a_step_and_an_observation_cost(step_s, cost_s):
    now, spent = 0.0, 0.0
    budget = Budget(0.01, burst_s=0.2, clock=lambda: now)
    n_observed = 0
    for step in range(3000):
        if budget.observe(step):
            n_observed += 1
            budget.spent(cost_s)
            spent += cost_s
            now += cost_s
        now += step_s
    # Overdrawn at most once, by the last observation.
    assert spent <= 0.2 + 0.01 * now + cost_s + 1e-9
    assert n_observed >= 1


@pytest.mark.parametrize(("between_s", "left_frac"), [(0.0, 1.0), (10e-6, 0.75), (1e-3, 0.3)])
def test_hooks_between_observed_steps_are_paid_for_first_but_leave_some(between_s, left_frac):
    now, step_s, cost_s, n_observed, n_steps = 0.0, 4e-3, 4e-3, 0, 60_000
    budget = Budget(0.01, burst_s=0.2, clock=lambda: now)
    for step in range(n_steps):
        if budget.observe(step):
            n_observed += 1
            budget.spent(cost_s)
            now += cost_s
        else:
            budget.spent_between(between_s)
            now += between_s
        now += step_s
    assert (n_observed * cost_s - 0.2) / now == pytest.approx(0.01 * left_frac, rel=0.1)


@given(every=st.integers(1, 60), steps=st.integers(0, 200))
def test_no_step_that_a_fixed_interval_chooses_is_one_that_need_not_be_asked_for(every, steps):
    sampler = make_sampler(every)
    if not sampler.observe(steps):
        n = sampler.idle_steps(steps)
        assert not any(sampler.observe(s) for s in range(steps + 1, steps + 1 + n))


@given(step_s=st.floats(1e-4, 0.1), ratio=st.floats(0.3, 20.0), uneven=st.floats(0.6, 1.7))
def test_of_the_steps_that_need_not_be_asked_for_the_budget_would_have_chosen_none(
    step_s, ratio, uneven
):
    now, idle_until, n_idle = 0.0, -1, 0
    budget = Budget(0.01, burst_s=2 * step_s, clock=lambda: now)
    for step in range(500):
        chosen = budget.observe(step)
        if step <= idle_until:
            assert not chosen
            n_idle += 1
        elif chosen:
            budget.spent(ratio * step_s)
        else:
            idle_until = step + budget.idle_steps(step)
        now += step_s * (uneven if step % 7 == 0 else 1.0)
    assert n_idle > 100


def observed_steps(n_steps, *, step_s, cost_s):
    now = 0.0
    budget = Budget(0.01, burst_s=0.2, clock=lambda: now)
    observed = []
    for step in range(n_steps):
        if budget.observe(step):
            observed.append(step)
            budget.spent(cost_s)
            now += cost_s
        now += step_s
    return observed


def test_the_first_steps_are_all_observed_and_a_short_run_is_seen_to_its_end():
    observed = observed_steps(300, step_s=0.01, cost_s=0.007)
    assert observed[:13] == list(range(13))
    assert observed[-1] > 200
    assert len(observed) < 40


def test_a_long_run_is_observed_evenly():
    late = [s for s in observed_steps(100_000, step_s=0.01, cost_s=0.007) if s > 50_000]
    gaps = [b - a for a, b in itertools.pairwise(late)]
    assert 60 <= min(gaps) <= max(gaps) <= 80  # 1 % of 10 ms pays 7 ms every 70 steps


@pytest.mark.parametrize("apart", [20, 100, 1000])
def test_evaluations_leave_most_of_the_budget_to_training(apart):
    now, n_train, n_evals, spent = 0.0, 0, 0, 0.0
    budget = Budget(0.01, burst_s=0.2, clock=lambda: now)
    for step in range(20_000):
        if step % apart == apart - 1:
            for n in range(5):
                chosen = budget.observe_evaluation(n)
                assert chosen or n_evals  # the first one is always seen
                if chosen:
                    n_evals += 1
                    budget.spent(0.15, on_evaluations=0.15)
                    now, spent = now + 0.15, spent + 0.15
                now += 0.05
        if budget.observe(step):
            n_train += 1
            budget.spent(0.15)
            now, spent = now + 0.15, spent + 0.15
        now += 0.05
    assert spent <= 0.2 + 0.01 * now + 2 * 0.15
    assert n_train > 2 * n_evals
    assert n_evals > 5


@pytest.mark.parametrize(("every", "apart"), [(1, 16), (3, 15), (8, 16), (50, 50)])
def test_the_dear_readings_come_at_first_and_then_every_sixteenth_step_or_so(every, apart):
    sampler = make_sampler(every)
    detailed = [s for s in range(every * 40) if sampler.observe(s) and sampler.detailed()]
    assert detailed[:8] == [every * i for i in range(8)]
    later = detailed[8:]
    assert {b - a for a, b in itertools.pairwise(later)} == {apart}
