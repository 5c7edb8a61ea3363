"""Rates of single neurons: what is kept, and what is said of their distribution."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats

from spikewatch.collectors.calls import Call, Subject
from spikewatch.collectors.instruments.neuron_rates import NeuronRates
from spikewatch.collectors.instruments.spike_counts import SpikeCounts
from spikewatch.collectors.layouts.axes import Axes
from spikewatch.collectors.library import Library
from spikewatch.metrics import TABLES

from ..conftest import plain


KEYS = {"run": "r", "rank": 0, "phase": "train", "step": 0, "layer": "l", "at": None}


class Reading:
    """Both instruments, as they stand behind one another."""

    def __init__(self):
        library = Library("user", is_spiking=lambda *_: None)
        subject = Subject(library, lambda: None, lambda _: None, lambda _: None)
        self.counts, self.rates = SpikeCounts(subject), NeuronRates(subject)

    def step(self, spikes):
        axes = Axes.parse("B*", rank=spikes.dim())
        call = Call(spikes, spikes, axes, 0, True, again=False, detailed=True, probed=True)
        self.counts.add(call)
        self.rates.add(call)
        self.counts.flush()
        counts = self.rates.flush()
        return None if counts is None else plain(counts.tables["neurons"])


def metrics(*rows):
    table = TABLES["neurons"]
    frame = table.compute(pl.DataFrame([KEYS | r for r in rows]))
    return table.merge(frame, by=["layer"])


def test_a_window_holds_the_events_of_each_neuron_since_the_last_one():
    reading, spikes = Reading(), torch.zeros(1000, 3)
    spikes[:10, 0] = 1
    spikes[:20, 2] = -1
    got = [reading.step(spikes) for _ in range(6)]
    assert got[:2] == [None, None]
    assert got[2] == {"n_neuron_obs": 3000, "neuron_stride": 1, "neuron_counts": [30, 0, 60]}
    assert got[5] == got[2]


def test_later_windows_are_kept_at_a_slower_pace():
    reading, spikes = Reading(), torch.ones(3000, 2)
    kept = [i for i in range(1, 40) if reading.step(spikes) is not None]
    assert kept == [1, 2, 4, 8, 16, 32]


def test_of_a_large_layer_an_even_part_is_kept_and_channels_are_told():
    reading = Reading()
    row = reading.step(torch.ones(3000, 2, 3, 4))
    assert row["neurons_per_channel"] == 12
    assert row["neuron_counts"] == [3000] * 24
    row = Reading().step(torch.zeros(3000, 5000))
    assert row["neuron_stride"] == 3
    assert len(row["neuron_counts"]) == 1667


def test_the_distributions_figures_are_those_of_scipy():
    counts = np.random.default_rng(0).lognormal(3, 1, 200).round().astype(int)
    counts[:15] = 0
    got = metrics({"n_neuron_obs": 3000, "neuron_stride": 1, "neuron_counts": counts.tolist()})
    logs = np.log(counts[counts > 0])
    assert got["log_rate_skewness"].item() == pytest.approx(stats.skew(logs))
    assert got["log_rate_excess_kurtosis"].item() == pytest.approx(stats.kurtosis(logs))
    assert got["lognormality_jb"].item() == pytest.approx(stats.jarque_bera(logs).statistic)


def gini_by_definition(x):
    """Mean absolute difference of all pairs over twice the mean."""
    x = np.asarray(x, dtype=float)
    return np.abs(x[:, None] - x[None]).mean() / (2 * x.mean())


@settings(deadline=None)
@given(st.lists(st.integers(0, 100), min_size=2, max_size=30).filter(any))
def test_ginis_coefficient_is_the_mean_difference_of_pairs(counts):
    got = metrics({"n_neuron_obs": 100, "neuron_stride": 1, "neuron_counts": counts})
    assert got["rate_gini"].item() == pytest.approx(gini_by_definition(counts), abs=1e-9)
    assert 0 <= got["rate_gini"].item() + 1e-12 <= 1 + 1e-9


def test_a_silent_layer_and_a_few_neurons_have_no_distribution():
    got = metrics({"n_neuron_obs": 100, "neuron_stride": 1, "neuron_counts": [0, 0, 0]})
    assert got["rate_gini"].item() is None
    assert got["log_rate_skewness"].item() is None


lists = st.lists(st.integers(0, 50), min_size=4, max_size=4)


@settings(deadline=None, max_examples=30)
@given(lists, lists, lists)
def test_windows_and_ranks_add_up_neuron_by_neuron_in_any_order(a, b, c):
    table = TABLES["neurons"]

    def row(counts):
        return {"n_neuron_obs": 10, "neuron_stride": 1, "neuron_counts": counts}

    together = metrics(row(a), row(b), row(c))
    nested = table.merge(pl.concat([metrics(row(c), row(b)), metrics(row(a))]), by=["layer"])
    expected = [x + y + z for x, y, z in zip(a, b, c, strict=True)]
    assert together["neuron_counts"].item().to_list() == expected
    assert nested["neuron_counts"].item().to_list() == expected
    assert together["n_neuron_obs"].item() == 30
