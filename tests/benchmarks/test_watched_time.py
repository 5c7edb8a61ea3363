"""The clock that the sampler's credit is earned by."""

import time

from benchmarks.overhead.watchers import CountingBudget, WatchedTime


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_the_clock_stands_still_while_the_bare_training_runs():
    clock = WatchedTime()
    spin(0.01)
    assert clock() == 0
    with clock.running():
        spin(0.01)
        assert clock() >= 0.01
    passed = clock()
    spin(0.01)
    assert clock() == passed


def test_the_sampler_earns_only_while_the_watched_training_runs_and_counts_what_it_chose():
    clock = WatchedTime()
    budget = CountingBudget(clock)
    assert budget.observe(0)
    budget.spent(budget.burst_s + budget.frac * 0.01)  # into debt by what 10 ms earn
    spin(0.02)
    assert not budget.observe(1)
    with clock.running():
        spin(0.02)
    assert budget.observe(2)
    assert budget.n_observed == 2
