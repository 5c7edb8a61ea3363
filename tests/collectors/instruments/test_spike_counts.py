"""The counters of a spiking layer: by hand, by property, and merged."""

import polars as pl
import pytest
import torch
from hypothesis import given, settings, strategies as st

from spikewatch.collectors.arrays import pack_bits
from spikewatch.collectors.calls import Call, Subject
from spikewatch.collectors.instruments.spike_counts import SpikeCounts
from spikewatch.collectors.layouts.axes import Axes
from spikewatch.collectors.library import Library
from spikewatch.metrics import TABLES
from spikewatch.metrics.spikes import DEAD_EVIDENCE_OBS

from ..conftest import plain


class Counting:
    """The instrument alone, fed with tensors."""

    def __init__(self, widths=()):
        library = Library("user", is_spiking=lambda *_: None)
        nothing = (lambda: None, lambda _: None, lambda _: None)
        self._counts = SpikeCounts(Subject(library, *nothing, widths=frozenset(widths)))

    def add(self, spikes, axes="B*", *, time=0):
        where = Axes.parse(axes, rank=spikes.dim())
        starts = time == 0
        self._counts.add(
            Call(spikes, spikes, where, time=time, starts_sample=starts, again=False, probed=False)
        )

    def flush(self):
        row = plain(self._counts.flush().tables["spikes"])
        return {name: value for name, value in row.items() if name in TABLES["spikes"].schema}


def count(*calls, axes="B*"):
    counts = Counting()
    for spikes in calls:
        counts.add(spikes, axes)
    return counts.flush()


def test_a_case_counted_by_hand():
    spikes = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 2.0]])  # two samples, three neurons
    assert count(spikes) == {
        "n_obs": 2,
        "n_neurons": 3,
        "n_spikes": 3,
        "n_positive": 2.0,
        "sum_abs_spike": 4.0,
        "n_nonfinite_spikes": 0.0,
        "evidence_n_obs": 2,
    }


def test_balanced_ternary_spikes_do_not_cancel():
    row = count(torch.tensor([[1.0, -1.0]] * 8))
    assert row["n_spikes"] == 16
    assert row["n_positive"] == 8


BAD = torch.tensor([[float("nan"), float("inf"), 1.0]] * 2)


@pytest.mark.parametrize("other", [1.0, -1.0])
@pytest.mark.parametrize("n_others", [0, 1, 3])
def test_a_call_with_nan_or_infinity_is_counted_apart_and_has_no_rate_or_sign(other, n_others):
    row = count(*[torch.full((1, 3), other)] * n_others, BAD)
    assert row["n_nonfinite_spikes"] == 1
    assert row["n_obs"] == n_others
    assert row["n_spikes"] == row["sum_abs_spike"] == 3 * n_others
    assert row["n_positive"] == 3 * n_others * (other > 0)
    shares = TABLES["spikes"].compute(pl.DataFrame([row])).row(0, named=True)
    assert shares["mfr"] == (1 if n_others else None)


@pytest.mark.parametrize("each", [False, True])
def test_a_distant_device_counts_calls_with_nan_apart_as_well(each, monkeypatch):
    monkeypatch.setattr("spikewatch.collectors.instruments.spike_counts.on_host", lambda _: False)
    row = count(*[torch.tensor([[1.0, -2.0, 0.0]])] * 2, BAD[:1]) if each else count(BAD)
    assert row["n_nonfinite_spikes"] == 1
    assert [row[n] for n in ("n_obs", "n_spikes", "n_positive", "sum_abs_spike")] == (
        [2, 4, 2, 6] if each else [0, 0, 0, 0]
    )


def test_a_neuron_that_sends_nan_is_not_dead():
    counts = Counting()
    counts.add(BAD.repeat(DEAD_EVIDENCE_OBS // 2 + 1, 1))
    assert counts.flush()["n_dead"] == 0


def test_many_spikes_in_bfloat16_are_counted_exactly():
    ones = torch.ones(1, 90_001, dtype=torch.bfloat16)
    assert count(ones)["n_spikes"] == 90_001
    assert count(ones)["sum_abs_spike"] == 90_001


def test_a_large_layer_is_counted_exactly_under_autocast_and_in_lower_matmul_precision():
    spikes = (torch.rand(2000, 64, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert count(spikes)["n_spikes"] == int(spikes.long().sum())
    finally:
        torch.set_float32_matmul_precision(before)


def test_nobody_is_called_dead_before_there_is_evidence():
    counts = Counting()
    silent = torch.zeros(DEAD_EVIDENCE_OBS - 1, 4)
    counts.add(silent)
    assert "n_dead" not in counts.flush()
    counts.add(torch.zeros(1, 4))
    assert counts.flush()["n_dead"] == 4


def test_a_neuron_that_wakes_is_not_dead_and_one_that_falls_silent_becomes_dead():
    counts, awake = Counting(), torch.zeros(1000, 3)
    awake[0, 0] = 1  # neuron 0 fires once in each step, neuron 1 in the first one only
    first = awake.clone()
    first[5, 1] = 1
    dead = []
    for step in range(6):
        counts.add(first if step == 0 else awake)
        dead.append(counts.flush().get("n_dead"))
    # 3 steps of 1000 hold 2995 observations: neuron 2 is dead from step 2, neuron 1 from step 3.
    assert dead == [None, None, 1, 2, 2, 2]


def silent_steps(counts, *, n_time_steps, whole):
    """Feed silent samples, thirty at once, until neurons are called dead; how many times."""
    for n in range(1, 200):
        if whole:
            counts.add(torch.zeros(n_time_steps, 30, 4), "TB*")
        else:
            for time in range(n_time_steps):
                # After the first step it is not told any more which time step a call is.
                counts.add(torch.zeros(30, 4), time=time if n == 1 else None)
        if "n_dead" in counts.flush():
            return n
    raise AssertionError("they are never called dead")


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("n_time_steps", "n"), [(2, 50), (10, 10), (30, 4), (100, 4), (500, 4)])
def test_time_steps_of_a_few_samples_are_no_evidence(whole, n_time_steps, n):
    assert silent_steps(Counting(), n_time_steps=n_time_steps, whole=whole) == n


def test_a_bitmap_says_behind_how_many_slots_it_stands():
    counts = Counting()
    for _ in range(4):
        counts.add(torch.zeros(100, 30, 4), "TB*")
        row = counts.flush()
    assert (row["silent_n_obs"], bytes(row["silent"])) == (12_000, b"\xf0")


def test_tokens_share_the_weights_of_a_channel_as_places_of_an_image_do():
    tokens = torch.zeros(1, 3000, 16, 8)  # time, batch, tokens, channels
    tokens[..., 4, :6] = 1  # one token makes six channels fire, the others none
    for widths, expected in (((8, 32), (8, 2)), ((16,), (16, 15)), ((8, 16), None), ((), None)):
        counts = Counting(widths)
        counts.add(tokens, "TB*")
        row = counts.flush()
        found = (row["n_channels"], row["n_dead_channels"]) if "n_channels" in row else None
        assert found == expected


def test_a_neuron_that_always_fires_is_saturated():
    counts, spikes = Counting(), torch.ones(3000, 3)
    spikes[: 3000 // 50, 1] = 0  # 98 %
    spikes[: 3000 // 200, 2] = 0  # 99.5 %
    counts.add(spikes)
    assert counts.flush()["n_saturated"] == 2


def test_bitmaps_merge_windows_and_ranks_by_and():
    alive_in_one = [torch.zeros(3000, 11), torch.zeros(3000, 11)]
    alive_in_one[0][7, 3] = alive_in_one[1][7, 10] = 1
    ranks = []
    for spikes in alive_in_one:
        counts = Counting()
        counts.add(spikes)
        ranks.append(bytes(counts.flush()["silent"]))
    both = bytes(a & b for a, b in zip(*ranks, strict=True))
    assert sum(byte.bit_count() for byte in both) == 9
    assert both[0] == 0b11101111
    assert both[1] == 0b11000000


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_bits_are_packed_first_neuron_first(flags):
    flags = torch.tensor(flags)
    packed = pack_bits(flags).tolist()
    assert bytes(packed) == pack_bits(flags.numpy())
    flags = flags.tolist()
    text = "".join(f"{byte:08b}" for byte in packed)
    assert [c == "1" for c in text[: len(flags)]] == flags
    assert "1" not in text[len(flags) :]


spike_tensors = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10_000)).map(
    lambda a: torch.randint(-1, 2, (a[0], 3, a[1]), generator=torch.Generator().manual_seed(a[2]))
)


@given(spike_tensors)
def test_chunks_give_what_the_whole_gives(spikes):
    whole = count(spikes, axes="TB*")
    assert count(*spikes, axes="B*") == whole
    assert 0 <= whole["n_spikes"] <= whole["n_obs"] * whole["n_neurons"]


@given(st.lists(st.integers(1, 4), min_size=2, max_size=6), st.integers(0, 1), st.integers(0, 99))
def test_steps_of_one_call_and_of_several_give_what_each_gives_alone(n_calls, least, seed):
    generator = torch.Generator().manual_seed(seed)
    counts = Counting()
    for n in n_calls:
        calls = [torch.randint(-least, 3, (4, 5), generator=generator).float() for _ in range(n)]
        for spikes in calls:
            counts.add(spikes)
        row, whole = counts.flush(), torch.cat(calls)
        assert row["n_obs"] == len(whole)
        assert row["n_spikes"] == (whole != 0).sum()
        assert row["n_positive"] == (whole > 0).sum()
        assert row["sum_abs_spike"] == whole.abs().sum()


@settings(deadline=None)
@given(st.lists(st.integers(0, 10_000), min_size=3, max_size=3))
def test_rows_merge_in_any_order_and_to_the_same_rates_as_one_window(seeds):
    tensors = [
        torch.randint(-1, 2, (4, 5), generator=torch.Generator().manual_seed(s)) for s in seeds
    ]
    table = TABLES["spikes"]
    keys = {"run": "r", "rank": 0, "phase": "train", "step": 0, "layer": "l", "at": None}

    def rows(*tensors):
        return table.compute(pl.DataFrame([keys | count(t) for t in tensors]))

    def merged(frame):
        return table.merge(frame, by=["layer"])

    a, b, c = (rows(t) for t in tensors)
    left = merged(pl.concat([merged(pl.concat([a, b])), c]))
    right = merged(pl.concat([a, merged(pl.concat([b, c]))]))
    whole = rows(torch.cat(tensors))
    for column in ("n_obs", "n_spikes", "mfr", "negative_rate_frac", "spike_entropy_bits"):
        assert left[column].item() == right[column].item()
        assert left[column].item() == pytest.approx(whole[column].item())


def test_the_dead_are_those_that_numpy_finds_silent_in_the_latest_window():
    torch.manual_seed(0)
    rates = torch.logspace(-5, -1, 60)
    counts, history = Counting(), []
    for _ in range(12):
        spikes = torch.bernoulli(rates.expand(700, 60))
        history.append(spikes)
        counts.add(spikes)
        dead = counts.flush().get("n_dead")
        latest = torch.cat(history[-5:]).numpy()  # 5 × 700 ≥ 2995
        expected = (latest.sum(0) == 0).sum() if len(history) >= 5 else None
        assert dead == expected
