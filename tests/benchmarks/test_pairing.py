"""The figures of paired blocks, by hand."""

import pytest
from hypothesis import given, strategies as st

from benchmarks.overhead.pairing import Block, Pair, Round, costs, cpu_ratio, quartiles, wall_ratio


def pair(bare_s, watched_s, *, observed=0, bare_writer_s=0.0, writer_s=0.0):
    bare = Block(bare_s, bare_s, bare_writer_s)
    return Pair(bare, Block(watched_s, watched_s, writer_s, observed))


def test_quiet_pairs_are_judged_by_their_median():
    pairs = [pair(10.0, 11.0), pair(10.0, 12.0), pair(10.0, 90.0)]
    assert wall_ratio([Round(pairs)], n_steps=1) == (pytest.approx(1.2), pytest.approx(1.2))


def test_an_observed_step_among_others_is_added_to_the_median_of_those():
    pairs = [pair(10.0, 11.0) for _ in range(8)]
    pairs.insert(3, pair(10.0, 31.0, observed=1))
    ratio, quiet = wall_ratio([Round(pairs)], n_steps=5)
    assert quiet == pytest.approx(1.1)
    # As the plain sums have it: (8 · 11 + 31) / 90.
    assert ratio == pytest.approx(119 / 90)


def test_a_writer_that_works_in_the_bare_block_is_paid_by_the_watched_one():
    pairs = [pair(10.0, 11.0, observed=5) for _ in range(7)]
    pairs.append(pair(16.0, 11.0, observed=5, bare_writer_s=6.0))
    ratio, quiet = wall_ratio([Round(pairs)], n_steps=5)
    assert quiet == pytest.approx(1.1)
    assert ratio == pytest.approx(1.1 + 6 / 80)


def test_what_hits_quiet_pairs_by_chance_is_not_charged_to_lumps():
    # Every pair's bare block, lumpy or not, was hit by 2 s in half of the cases.
    quiet = [pair(10.0, 10.0), pair(12.0, 12.0)] * 6
    lumpy = [pair(10.0, 10.0, observed=1), pair(12.0, 12.0, observed=1)]
    ratio, _ = wall_ratio([Round(quiet[:6] + lumpy + quiet[6:])], n_steps=5)
    assert ratio == pytest.approx(1.0, abs=0.01)


def test_where_all_steps_are_observed_none_is_a_lump():
    pairs = [pair(10.0, 15.0, observed=1), pair(10.0, 15.0, observed=1)]
    assert wall_ratio([Round(pairs)], n_steps=1) == (1.5, 1.5)


def test_threads_that_always_work_are_held_against_blocks_after_a_rest():
    # Alone a bare block takes 10 s; the tool's thread slows it down to 15 s.
    pairs = [pair(15.0, 25.0, bare_writer_s=5.0, writer_s=5.0) for _ in range(4)]
    ratio, quiet = wall_ratio([Round(pairs, alone_s=10.0)], n_steps=1)
    assert ratio == quiet == pytest.approx(3.0)


def test_without_quiet_pairs_or_a_rest_all_count_as_quiet():
    pairs = [pair(10.0, 20.0, writer_s=5.0) for _ in range(9)] + [pair(10.0, 10.0)]
    assert wall_ratio([Round(pairs)], n_steps=1) == (2.0, 2.0)


def test_cpu_time_of_writers_counts_wherever_it_was_spent():
    pairs = [pair(10.0, 11.0, writer_s=1.0), pair(10.0, 11.0, bare_writer_s=2.0)]
    assert cpu_ratio(pairs) == pytest.approx((22 + 3) / 20)


def test_threads_of_the_bare_training_are_no_writers():
    pairs = [pair(10.0, 10.0, writer_s=5.0, bare_writer_s=5.0)] * 2
    assert cpu_ratio(pairs, own_background_s=5.0) == pytest.approx(1.0)
    assert wall_ratio([Round(pairs)], n_steps=1, own_background_s=5.0) == (1.0, 1.0)


def test_quartiles_lie_between_the_values():
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 4.0)
    assert quartiles([1.0, 3.0]) == (1.5, 2.5)


def test_costs_of_two_rounds():
    slow = [pair(0.020, 0.024, observed=4) for _ in range(3)]
    fast = [pair(0.010, 0.011, observed=4) for _ in range(3)]
    found = costs([Round(slow), Round(fast)], n_steps=4)
    assert found.step_ms == pytest.approx(15 / 4)  # half way between 20 and 10 ms, for 4 steps
    assert found.wall_ratio == pytest.approx(1.15)
    assert found.wall_quartiles == pytest.approx((1.125, 1.175))
    assert found.cpu_ratio == pytest.approx((3 * 0.024 + 3 * 0.011) / 0.09)
    assert found.extra_ms == pytest.approx(0.15 * 15 / 4)
    assert found.observed_frac == 1
    assert (found.n_rounds, found.n_steps) == (2, 24)


def test_letting_go_of_what_was_kept_is_a_part_of_the_cost():
    rounds = [Round([pair(1.0, 1.0)])] * 2
    found = costs(rounds, n_steps=1, relief_s=0.5)
    assert found.wall_ratio == pytest.approx(1.25)
    assert found.cpu_ratio == pytest.approx(1.25)
    assert found.wall_quartiles == pytest.approx((1.25, 1.25))


@pytest.mark.parametrize(
    "rounds", [[], [Round([pair(1.0, 1.0)])], [Round([pair(1.0, 1.0)]), Round([])]]
)
def test_too_little_to_judge_by_is_refused(rounds):
    with pytest.raises(ValueError, match="two rounds"):
        costs(rounds, n_steps=1)


@given(
    st.lists(st.floats(0.5, 2.0), min_size=4, max_size=40),
    st.floats(1.0, 3.0),
    st.floats(0.1, 10.0),
)
def test_the_ratio_is_found_whatever_the_speed_of_the_machine(speeds, ratio, scale):
    pairs = [pair(scale * s, scale * s * ratio, observed=1) for s in speeds]
    assert wall_ratio([Round(pairs)], n_steps=1)[0] == pytest.approx(ratio)
    assert cpu_ratio(pairs) == pytest.approx(ratio)
