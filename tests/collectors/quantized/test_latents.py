"""Latent weights against levels and threshold: by hand, and apart from spikewatch in NumPy."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from spikewatch.collectors.quantized.latents import LatentCounts, UpdateRatio
from spikewatch.collectors.quantized.levels import Levels
from spikewatch.collectors.quantized.reading import Weights
from spikewatch.metrics import TABLES
from spikewatch.zoo.ternary_linear import ternarize


LAYER = nn.Linear(1, 1)


def counters_of(quantized, latent, *, granularity="tensor", most_tracked=65_536, reader=None):
    weights = Weights(
        torch.as_tensor(quantized),
        torch.as_tensor(latent),
        granularity,
        LAYER,
        most_tracked=most_tracked,
    )
    row = (reader or LatentCounts()).read(weights).tables["latent"]
    return {k: None if v is None else float(v) for k, v in row.items()}


def metrics_of(counters):
    table = TABLES["latent"]
    return table.compute(pl.DataFrame([counters])).row(0, named=True)


def figures(quantized, latent, **options):
    return metrics_of(counters_of(quantized, latent, **options))


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.02


def test_by_hand():
    row = figures([[0.0, 2.0, -2.0, 0.0]], [[1.0, 3.0, -2.0, 0.0]])
    # signal 14; noise 1 + 1 + 0 + 0; with α* = 10/8 the noise is 14 − 100/8
    assert row["sqnr_db"] == pytest.approx(10 * np.log10(14 / 2))
    assert row["sqnr_fitted_db"] == pytest.approx(10 * np.log10(14 / 1.5))
    assert row["deadzone_frac"] == 0.5  # Δ = 1
    assert row["clipped_frac"] == 0.75
    assert row["boundary_distance"] == 1.0  # 0, 2, 1, 1
    assert row["latent_drift"] == 1.0
    assert row["boundary_pileup"] is None  # two weights say nothing of a density


def test_references_of_gaussian_weights():
    w = gaussian(250, 260)
    absmean = w.abs().mean()
    bitnet = (w / absmean).round().clamp(-1, 1)
    twn = figures(ternarize(w), w)
    assert twn["sqnr_db"] == pytest.approx(7.18, abs=0.06)
    assert twn["sqnr_fitted_db"] == pytest.approx(twn["sqnr_db"], abs=1e-4)
    assert twn["boundary_pileup"] == pytest.approx(1.0, abs=0.05)
    assert twn["deadzone_frac"] == pytest.approx(0.4235, abs=0.006)
    scaled = figures(bitnet * absmean, w)
    assert scaled["sqnr_db"] == pytest.approx(5.8, abs=0.08)
    # {−1, 0, +1} as it is multiplied, the scale applied to the output
    unscaled = figures(bitnet, w)
    assert unscaled["sqnr_db"] == pytest.approx(scaled["sqnr_fitted_db"], abs=1e-3)


def independent(quantized, latent, delta):
    w, t = latent.double().numpy().ravel(), quantized.double().numpy().ravel()
    ratio = np.abs(w) / delta
    inside, at, outside = (
        ((ratio >= a) & (ratio < b)).sum() for a, b in ((0.7, 0.9), (0.9, 1.1), (1.1, 1.3))
    )
    return {
        "sqnr_db": 10 * np.log10((w**2).sum() / ((w - t) ** 2).sum()),
        "boundary_pileup": at / ((inside + outside) / 2),
        "boundary_distance": np.median(np.abs(ratio - 1)),
        "clipped_frac": (np.abs(w) >= 1).mean(),
    }


@pytest.mark.parametrize("by_row", [False, True])
def test_numpy_agrees(by_row):
    w = gaussian(200, 300) * torch.linspace(1, 60, 200)[:, None]
    t = ternarize(w, by_row=by_row)
    zeros = w.abs().where(t == 0, torch.zeros(()))
    delta = zeros.amax(1, keepdim=True).expand_as(w) if by_row else zeros.amax()
    row = figures(t, w, granularity="row" if by_row else "tensor")
    expected = independent(t, w, np.ravel(delta.numpy()))
    assert row.items() >= {k: pytest.approx(v, rel=2e-3) for k, v in expected.items()}.items()


def test_groups_have_thresholds_of_their_own():
    w = gaussian(60, 256) * torch.linspace(1, 40, 120).reshape(60, 2).repeat_interleave(128, 1)
    t = ternarize(w.reshape(-1, 128), by_row=True).reshape(60, 256)
    reader, levels = LatentCounts(), Levels("ternary", "group", 3, group=128)
    read = reader.read(Weights(t, w, "group", LAYER, levels=levels))
    row = metrics_of({k: None if v is None else float(v) for k, v in read.tables["latent"].items()})
    assert row["deadzone_frac"] == pytest.approx((t == 0).float().mean().item())
    assert row["boundary_pileup"] == pytest.approx(1.0, abs=0.12)


def test_a_sample_is_near_the_whole():
    w = gaussian(200, 300)
    t = ternarize(w, by_row=True)
    whole = figures(t, w, granularity="row")
    part = figures(t, w, granularity="row", most_tracked=10_000)
    assert (whole["n_latent"], part["n_latent"]) == (60_000, 10_000)
    assert part["sqnr_db"] == pytest.approx(whole["sqnr_db"], abs=0.15)
    assert part["deadzone_frac"] == pytest.approx(whole["deadzone_frac"], abs=0.02)


def test_numbers_are_read_of_no_more_than_65_536_weights_however_many_are_followed():
    w = gaussian(300, 300)
    assert figures(ternarize(w), w, most_tracked=10**6)["n_latent"] == 65_536


SUMS = [
    "n_latent", "n_latent_zero", "sum_sq_latent", "sum_latent_quantized", "sum_sq_quantized",
    "sum_abs_latent", "n_clipped", "n_deadzone", "n_boundary_inside", "n_boundary",
    "n_boundary_outside",
]  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 29), st.floats(0.01, 3))
def test_rows_apart_add_up_to_the_whole_and_every_figure_is_in_range(seed, cut, scale):
    w = torch.randn((30, 40), generator=torch.Generator().manual_seed(seed)) * scale
    t = ternarize(w, by_row=True)
    whole = counters_of(t, w, granularity="row")
    parts = [counters_of(t[s], w[s], granularity="row") for s in (slice(cut), slice(cut, None))]
    for name in SUMS:
        assert sum(p[name] for p in parts) == pytest.approx(whole[name], rel=1e-5), name
    row = metrics_of(whole)
    assert 0 <= row["sqnr_db"] <= row["sqnr_fitted_db"] + 1e-4 < 20
    assert 0 <= row["deadzone_frac"] <= 1
    assert 0 <= row["clipped_frac"] <= 1
    assert row["boundary_distance"] >= 0


def test_weights_pushed_to_the_threshold_pile_up():
    w = gaussian(300, 300)
    delta = 0.7 * w.abs().mean()
    near = ((w.abs() - delta).abs() < 0.3 * delta) & (torch.arange(300) % 3 > 0)
    w = torch.where(near, w.sign() * (delta + 0.3 * (w.abs() - delta)), w)
    assert figures(ternarize(w), w)["boundary_pileup"] > 2


def test_zeros_that_no_threshold_makes_have_no_boundary():
    w = gaussian(200, 200)
    smallest = w.reshape(-1, 4).abs().argmin(1, keepdim=True)  # one of four is 0, whatever its size
    sparse = torch.ones(10_000, 4).scatter_(1, smallest, 0).reshape(200, 200) * w.sign() * 0.02
    row = figures(sparse, w)
    assert row["deadzone_frac"] > 0.5
    assert row["boundary_pileup"] is row["boundary_distance"] is None


def test_a_collapsed_layer_has_no_signal_left():
    w = gaussian(20, 20)
    row = figures(torch.zeros(20, 20), w)
    assert row["sqnr_fitted_db"] == pytest.approx(0.0, abs=1e-6)


def test_drift_is_against_the_first_look():
    reader, w = LatentCounts(), gaussian(50, 50)
    counters_of(ternarize(w), w, reader=reader)
    row = metrics_of(counters_of(ternarize(3 * w), 3 * w, reader=reader))
    assert row["latent_drift"] == pytest.approx(3.0, rel=1e-5)


@pytest.mark.parametrize("most_tracked", [10**6, 500])
def test_an_update_is_measured_from_the_forward_pass_to_the_end_of_the_step(most_tracked):
    layer = nn.Linear(60, 40)
    reader, latent = UpdateRatio(), layer.weight.detach()
    t = ternarize(latent)
    delta = latent.abs()[t == 0].max()
    reader.read(Weights(t, latent, "tensor", layer, most_tracked=most_tracked))
    with torch.no_grad():
        layer.weight += 0.01 * delta  # as an optimizer does: in place
    ended = reader.end(layer, layer.weight.detach(), None).tables["latent"]
    assert float(ended["median_update_ratio"]) == pytest.approx(0.01, rel=1e-3)
    assert reader.end(layer, layer.weight.detach(), None) is None  # nothing is held any more


@pytest.mark.parametrize("most_tracked", [10**6, 500])
def test_a_shard_is_not_taken_for_the_whole(most_tracked):
    layer, reader = nn.Linear(60, 40), UpdateRatio()
    latent = layer.weight.detach()
    reader.read(Weights(ternarize(latent), latent, "tensor", layer, most_tracked=most_tracked))
    assert reader.end(layer, latent[:20], None) is None


def test_an_evaluation_holds_nothing():
    layer, reader = nn.Linear(6, 4), UpdateRatio()
    t = ternarize(layer.weight.detach())
    reader.read(Weights(t, layer.weight.detach(), "tensor", layer, phase="eval"))
    assert reader.end(layer, layer.weight.detach(), None) is None
