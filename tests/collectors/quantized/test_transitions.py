"""Flips, reversals and retained zeros: by hand, and against plain loops over the whole history."""

import copy
import pickle

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from spikewatch.collectors.quantized.pieces import PIECE
from spikewatch.collectors.quantized.reading import Weights
from spikewatch.collectors.quantized.sampling import strata, take
from spikewatch.collectors.quantized.transitions import Transitions
from spikewatch.metrics import TABLES
from spikewatch.metrics.transitions import COHORT_STEPS, OSCILLATION_STEPS


LAYER = nn.Linear(1, 1)


def look(tracker, levels, step, *, phase="train", scale=0.3, most_tracked=65_536):
    weight = torch.as_tensor(np.asarray(levels, dtype=np.float32)) * scale
    read = tracker.read(
        Weights(
            weight.reshape(1, -1) if weight.dim() == 1 else weight,
            weight,
            "tensor",
            LAYER,
            phase=phase,
            step=step,
            most_tracked=most_tracked,
        )
    )
    if read is None:
        return None
    row = read.tables["transitions"]
    return {k: None if v is None else float(v) for k, v in row.items()}


def follow(history, steps=None, **options):
    """What the last of many looks tells."""
    tracker = Transitions()
    for step, levels in zip(steps or range(len(history)), history, strict=True):
        row = look(tracker, levels, step, **options)
    return row


def test_flips_and_reversals_by_hand():
    tracker = Transitions()
    assert look(tracker, [0, 0, 1, -1], 0) is None
    first = look(tracker, [1, 0, 0, -1], 1)
    assert (first["n_flips"], first["n_reversals"], first["n_live_flips"]) == (2, 0, 1)
    assert (first["n_flip_slots"], first["n_live_slots"]) == (4, 2)
    assert (first["n_cohort"], first["n_retained"], first["cohort_age_steps"]) == (2, 1, 1)
    # up then down; not at all; down then down further; up for the first time; two steps later
    second = look(tracker, [0, 0, -1, 1], 3)
    assert (second["n_flips"], second["n_reversals"], second["n_never_flipped"]) == (3, 1, 1)
    assert (second["n_flip_slots"], second["look_gap_steps"]) == (8, 2)
    assert second["n_retained"] == 1
    assert second["slots_since_flip"] == 0
    assert look(tracker, [0, 0, -1, 1], 5)["slots_since_flip"] == 8


def test_an_evaluation_and_a_second_look_in_a_step_do_not_count():
    tracker = Transitions()
    look(tracker, [0, 1], 0)
    assert look(tracker, [1, 1], 0) is None
    assert look(tracker, [1, 1], 1, phase="eval") is None
    assert look(tracker, [1, 1], 1)["n_flips"] == 1


def test_another_shape_begins_anew():
    tracker = Transitions()
    look(tracker, [0, 1], 0)
    assert look(tracker, [0, 1, 1], 1) is None
    assert look(tracker, [0, 1, 0], 2)["n_flips"] == 1


def test_it_goes_on_after_a_break_a_copy_and_a_pickle():
    tracker = Transitions()
    look(tracker, [0, 1, -1, 0], 0)
    for again in (copy.deepcopy(tracker), pickle.loads(pickle.dumps(tracker)), tracker):
        row = look(again, [0, 1, 1, 0], 40)
        assert (row["n_flips"], row["n_flip_slots"], row["n_retained"]) == (1, 160, 2)


def test_a_model_that_moved_to_another_device_is_followed_on():
    tracker = Transitions()
    for step in range(OSCILLATION_STEPS + 2):
        look(tracker, [0, 1, -1, 0], step)
    moved = torch.empty(1, 4, device="meta")
    weights = Weights(moved, moved, "tensor", LAYER, step=step + 1)
    row = tracker.read(weights).tables["transitions"]
    tensors = [v for v in row.values() if isinstance(v, torch.Tensor)]
    assert tensors
    assert {t.device.type for t in tensors} == {"meta"}


def test_a_byte_a_weight_is_all_that_is_kept():
    tracker = Transitions()
    for step in range(3):
        look(tracker, np.random.default_rng(step).integers(-1, 2, 10_000), step)
    kept = [v for v in vars(tracker).values() if isinstance(v, torch.Tensor)]
    assert sum(t.nbytes for t in kept) <= 10_000 + 64


def reference(history):
    """The same from the whole history [steps, weights], each step observed."""
    history = np.asarray(history)
    change = np.diff(history, axis=0)
    n_steps, n = change.shape
    reversals = np.zeros_like(change, dtype=bool)
    for i in range(n):
        last = 0
        for t in range(n_steps):
            if change[t, i]:
                reversals[t, i] = last * change[t, i] < 0
                last = np.sign(change[t, i])
    zeros = history[0] == 0
    return {
        "n_flips": (change[-1] != 0).sum(),
        "n_reversals": reversals[-1].sum(),
        "n_live_flips": ((change[-1] != 0) & (history[-2] != 0)).sum(),
        "n_live_slots": (history[-2] != 0).sum(),
        "n_never_flipped": (change == 0).all(0).sum(),
        "n_cohort": zeros.sum(),
        "n_retained": ((history == 0).all(0) & zeros).sum(),
    }, reversals


histories = arrays.arrays(
    np.int8,
    st.tuples(st.integers(2, 12), st.integers(1, 9)),
    elements=st.integers(-1, 1),
)


@settings(deadline=None, max_examples=60)
@given(histories)
def test_every_count_is_that_of_the_whole_history(history):
    row = follow(history)
    expected, _ = reference(history)
    assert row.items() >= expected.items()
    assert 0 <= row["n_reversals"] <= row["n_flips"] <= row["n_tracked"]
    assert row["n_retained"] <= row["n_cohort"]


@settings(deadline=None, max_examples=30)
@given(histories, st.integers(2, 4))
def test_looks_at_every_nth_step_count_no_more_than_happened(history, every):
    steps = list(range(0, len(history), every))
    tracker, seen = Transitions(), 0.0
    for step in steps:
        row = look(tracker, history[step], step)
        seen += row["n_flips"] if row else 0
    assert seen <= (np.diff(history[: steps[-1] + 1], axis=0) != 0).sum()


def random_walk(n_steps, n, rate, seed=0):
    """Levels that each change by one, now and then."""
    rng = np.random.default_rng(seed)
    latent = np.cumsum(rng.normal(0, rate, (n_steps, n)), 0) + rng.normal(0, 1, n)
    return np.clip(np.rint(latent), -1, 1).astype(np.int8)


def test_oscillation_is_reversals_in_the_last_window_and_below_the_moving_average():
    n_steps = 2 * OSCILLATION_STEPS + 1  # ends where a half of the window does
    history = random_walk(n_steps, 4000, 0.02)
    row = follow(history)
    _, reversals = reference(history)
    assert row["n_oscillating"] == reversals[-OSCILLATION_STEPS:].any(0).sum()
    average = np.zeros(4000)  # Nagel et al. 2022
    for reversal in reversals:
        average = 0.01 * reversal + 0.99 * average
    # Bursts of reversals that ended longer ago keep the average up.
    assert 0.7 < row["n_oscillating"] / (average > 0.005).sum() <= 1.02


def test_a_weight_that_only_rises_does_not_oscillate_and_one_that_flickers_does():
    n_steps = 2 * OSCILLATION_STEPS + 1
    rising = np.clip(np.arange(n_steps) // 40 - 1, -1, 1)
    flickering = np.arange(n_steps) % 2
    row = follow(np.stack([rising, flickering], 1))
    assert row["n_oscillating"] == 1
    # Only every second step: the flickering weight is always seen at the same level.
    blind = follow(np.stack([rising, flickering], 1)[::2], steps=list(range(0, n_steps, 2)))
    assert blind["n_oscillating"] == 0


def test_until_a_window_has_passed_oscillation_is_unknown():
    history = random_walk(OSCILLATION_STEPS, 50, 0.02)
    assert follow(history)["n_oscillating"] is None


def test_one_cohort_of_zeros_is_always_old_enough():
    tracker, ages = Transitions(), []
    for step in range(0, 6 * COHORT_STEPS, 20):
        row = look(tracker, [0, 0, 1], step)
        ages.append(row["cohort_age_steps"] if row else 0)
        if row:
            assert row["n_retained"] == row["n_cohort"] == 2
    late = ages[COHORT_STEPS // 20 :]
    assert min(late) >= COHORT_STEPS
    assert max(late) <= 2 * COHORT_STEPS


def test_a_zero_that_left_and_came_back_is_not_retained():
    row = follow([[0, 0, 1], [0, 1, 0], [0, 0, 0]])
    assert (row["n_cohort"], row["n_retained"]) == (2, 1)


@given(st.integers(1, 5000), st.integers(1, 200))
def test_a_sample_has_one_weight_of_each_stratum(n_all, n):
    n = min(n, n_all)
    indices = strata(n_all, n, device=torch.device("cpu"))
    edges = torch.arange(n + 1) * n_all // n
    assert (indices >= edges[:-1]).all()
    assert (indices < edges[1:]).all()


def test_a_sample_meets_every_column():
    indices = strata(4096 * 4096, 65_536, device=torch.device("cpu"))
    per_column = torch.bincount(indices % 4096, minlength=4096)
    assert (per_column > 0).float().mean() > 0.95


def test_elements_are_taken_alike_of_a_transposed_tensor():
    x = torch.arange(12.0).reshape(3, 4)
    some = torch.tensor([1, 5, 10])
    assert take(x.t(), some).tolist() == x.t().flatten()[some].tolist()


def test_a_sampled_rate_is_near_that_of_all_weights():
    rng = np.random.default_rng(0)
    before = rng.integers(-1, 2, (1000, 1000))
    after = np.where(rng.random((1000, 1000)) < 0.01, -before, before)
    whole = follow([before, after], most_tracked=10**6)
    part = follow([before, after], most_tracked=65_536)
    assert (whole["n_tracked"], part["n_tracked"]) == (10**6, 65_536)
    table = TABLES["transitions"]
    exact, near = (table.compute(pl.DataFrame([r])).row(0, named=True) for r in (whole, part))
    assert exact["flip_rate_error"] == 0
    assert near["flip_rate_error"] == pytest.approx(
        (0.00666 / 65_536 * (1 - 0.0655)) ** 0.5, rel=0.1
    )
    assert near["flip_rate"] == pytest.approx(exact["flip_rate"], abs=4 * near["flip_rate_error"])


@pytest.mark.parametrize("pieces", [7, 1000])
def test_pieces_add_up_to_the_whole(pieces, monkeypatch):
    history = random_walk(80, 500, 0.05)
    whole = follow(history)
    monkeypatch.setitem(PIECE, "cpu", pieces)
    assert follow([h.reshape(100, 5) for h in history]) == whole
    few = follow(history, most_tracked=300)
    monkeypatch.setattr("spikewatch.collectors.quantized.reading._FOLLOWED_AT_ONCE", pieces)
    assert follow(history, most_tracked=300) == few
