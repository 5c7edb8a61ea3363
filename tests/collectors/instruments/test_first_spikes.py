"""Time to first spike: by hand, against a plain loop, chunked and whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from spikewatch.collectors.calls import Call, Subject
from spikewatch.collectors.instruments.first_spikes import FirstSpikes
from spikewatch.collectors.layouts.axes import Axes
from spikewatch.collectors.library import Library

from ..conftest import plain


def reader(*, spike_times=False):
    library = Library("user", is_spiking=lambda *_: None, spike_times=spike_times)
    return FirstSpikes(Subject(library, lambda: None, lambda _: None, lambda _: None))


def call(spikes, axes="B*", *, time=0, starts=True):
    where = Axes.parse(axes, rank=spikes.dim())
    return Call(spikes, spikes, where, time, starts, again=False, detailed=True, probed=True)


def whole(spikes, axes="TB*"):
    first = reader()
    first.add(call(spikes, axes))
    return first.flush()


def step_by_step(*samples):
    first = reader()
    for sample in samples:
        for time, spikes in enumerate(sample):
            first.add(call(spikes, time=time, starts=time == 0))
    return first.flush()


def row(counts):
    return plain(counts.tables["timing"])


def by_a_loop(spikes):
    """Σ of first spike times over those that fired, restricted Σ, number that fired."""
    n_steps, pairs = len(spikes), spikes.reshape(len(spikes), -1)
    fired, restricted = [], []
    for pair in pairs.T:
        times = np.flatnonzero(pair)
        if len(times):
            fired.append(times[0])
        restricted.append(times[0] if len(times) else n_steps)
    return sum(fired), sum(restricted), len(fired)


def test_silence_is_censored_and_not_the_fastest_answer():
    # One sample, three neurons, four steps: fires at 0, fires at 2 and 3, never.
    spikes = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, -1, 0], [0, 1, 0]]).unsqueeze(1)
    counted = whole(spikes)
    assert row(counted) == {
        "n_timed_obs": 4,
        "n_ttfs_pairs": 3,
        "n_ttfs_fired": 2,
        "sum_ttfs_steps": 0 + 2,
        "sum_ttfs_restricted_steps": 0 + 2 + 4,
        "sum_ttfs_length_steps": 12,
    }
    (histogram,) = counted.histograms
    assert histogram.counts.tolist() == [1, 0, 1, 0]
    assert histogram.edges == (-0.5, 0.5, 1.5, 2.5, 3.5)


spike_trains = st.tuples(
    st.integers(1, 9), st.integers(1, 4), st.integers(1, 6), st.integers(0, 10_000)
).map(lambda a: torch.rand(a[:3], generator=torch.Generator().manual_seed(a[3])).lt(0.15).float())


@settings(deadline=None)
@given(spike_trains)
def test_it_is_what_a_plain_loop_finds(spikes):
    got = row(whole(spikes))
    expected = by_a_loop(spikes.numpy())
    names = ("sum_ttfs_steps", "sum_ttfs_restricted_steps", "n_ttfs_fired")
    assert tuple(got[n] for n in names) == expected
    assert got["n_ttfs_fired"] <= got["n_ttfs_pairs"]


@settings(deadline=None)
@given(spike_trains, spike_trains)
def test_calls_for_each_step_give_what_whole_sequences_give(one, other):
    first = reader()
    first.add(call(one, "TB*"))
    first.add(call(other, "TB*"))
    assert row(step_by_step(one, other)) == row(first.flush())


@settings(deadline=None)
@given(spike_trains, st.integers(0, 12))
def test_parts_of_a_sequence_give_what_the_whole_one_gives(spikes, at):
    first = reader()
    for time, part in ((0, spikes[:at]), (min(at, len(spikes)), spikes[at:])):
        if len(part):
            first.add(call(part, "TB*", time=time, starts=time == 0))
    assert row(first.flush()) == row(whole(spikes))


@pytest.mark.parametrize(("axes", "order"), [("BT*", (1, 0, 2)), ("B*T", (1, 2, 0))])
def test_time_may_stand_anywhere(axes, order):
    torch.manual_seed(0)
    spikes = torch.bernoulli(torch.full((6, 3, 4), 0.2))
    assert row(whole(spikes.permute(order).contiguous(), axes)) == row(whole(spikes))


def test_a_sample_that_the_step_cuts_off_is_closed_there():
    first = reader()
    first.add(call(torch.zeros(1, 2), time=0, starts=True))
    first.add(call(torch.tensor([[0.0, 1.0]]), time=1, starts=False))
    assert row(first.flush())["sum_ttfs_restricted_steps"] == 2 + 1
    first.add(call(torch.ones(1, 2), time=2, starts=False))  # its beginning was not observed
    assert first.flush() is None


def test_many_pairs_are_followed_by_an_even_sample_of_them():
    torch.manual_seed(0)
    spikes = torch.bernoulli(torch.full((8, 64, 1000), 0.1))
    got = row(whole(spikes))
    total, _, fired = by_a_loop(spikes.numpy())
    assert got["n_ttfs_pairs"] <= 4096
    assert got["sum_ttfs_steps"] / got["n_ttfs_fired"] == pytest.approx(total / fired, abs=0.15)


def test_libraries_that_return_times_are_read_as_they_are():
    first = reader(spike_times=True)
    first.add(call(torch.tensor([[0.5, 2.5, float("inf")]])))
    got = row(first.flush())
    assert (got["n_ttfs_pairs"], got["n_ttfs_fired"], got["sum_ttfs_steps"]) == (3, 2, 3.0)
    assert "sum_ttfs_restricted_steps" not in got


def test_a_longer_sample_than_the_first_one_goes_above_the_last_bin():
    late = torch.zeros(5, 1, 1)
    late[4] = 1
    first = reader()
    first.add(call(torch.zeros(2, 1, 1), "TB*"))
    first.add(call(late, "TB*"))
    (histogram,) = first.flush().histograms
    assert (histogram.counts.tolist(), int(histogram.above)) == ([0, 0], 1)
