"""Each metric by a case worked out by hand, and what holds for all of them."""

import math
from datetime import datetime

import polars as pl
import pytest

from spikewatch.metrics import KEYS, METRICS, RECORDS, TABLES
from spikewatch.metrics.wide import COLUMNS, widen


AT = datetime(2026, 1, 1)
KEY = {"run": "r", "rank": 0, "phase": "train", "step": 3, "layer": "lif", "at": AT}


def compute(table, **counters):
    return TABLES[table].compute(pl.DataFrame([KEY | counters])).row(0, named=True)


def test_spikes_by_hand():
    row = compute(
        "spikes",
        n_obs=10,
        n_neurons=4,
        n_spikes=20,
        n_positive=15,
        sum_abs_spike=30.0,
        n_dead=1,
        n_saturated=2,
    )
    assert row["mfr"] == 0.5
    assert row["positive_rate_frac"] == 0.375
    assert row["negative_rate_frac"] == 0.125
    assert row["dead_frac"] == 0.25
    assert row["saturated_frac"] == 0.5
    assert row["spike_amplitude"] == 1.5
    # p = 3/8, 1/8, 1/2: 0.5306 + 0.375 + 0.5 bits
    assert row["spike_entropy_bits"] == pytest.approx(1.405639, abs=1e-6)


def test_gradients_by_hand():
    row = compute(
        "gradients",
        n_sg=8,
        sum_sg=2.0,
        n_sg_active=6,
        n_sg_neurons=4,
        n_carrying=3,
        n_grad=4,
        sum_sq_grad=16.0,
    )
    assert (row["sg_mean"], row["sg_active_frac"], row["grad_carrying_frac"]) == (0.25, 0.75, 0.75)
    assert (row["grad_norm"], row["grad_rms"]) == (4.0, 2.0)


def test_amplitudes_by_hand():
    row = compute(
        "amplitudes",
        n_amplitudes=4,
        sum_amplitude=6.0,
        n_amplitudes_out=1,
        n_alphas=2,
        sum_alpha=1.0,
    )
    assert (row["amplitude_mean"], row["amplitude_out_frac"], row["alpha_mean"]) == (1.5, 0.25, 0.5)


def test_weights_by_hand():
    row = compute(
        "weights",
        n_weights=8,
        n_weight_negative=2,
        n_weight_zero=4,
        n_weight_positive=2,
        sum_scale_positive=1.0,
        sum_scale_negative=3.0,
    )
    assert row["weight_entropy_bits"] == 1.5
    assert row["weight_zero_frac"] == 0.5
    assert (row["scale_positive"], row["scale_negative"]) == (0.5, 1.5)


def test_ternary_layers_by_hand():
    row = compute(
        "weights",
        n_weights=8,
        n_weight_negative=1,
        n_weight_zero=4,
        n_weight_positive=3,
        sum_scale_positive=6.0,
        sum_scale_negative=1.0,
        n_rows=4,
        n_dead_rows=1,
        n_columns=2,
        n_dead_columns=1,
        n_learnable_scales=2,
        n_scales_without_gradient=1,
        n_model_weights=16,
        n_ternary_weights=8,
    )
    assert row["scale_log_ratio"] == pytest.approx(math.log(2))
    assert row["weight_sign_imbalance"] == 0.5
    assert (row["dead_row_frac"], row["dead_column_frac"]) == (0.25, 0.5)
    assert (row["scale_without_gradient_frac"], row["model_ternary_frac"]) == (0.5, 0.5)


def test_transitions_by_hand():
    row = compute(
        "transitions",
        n_tracked=10,
        n_flip_slots=40,
        n_flips=4,
        n_reversals=3,
        n_live_slots=20,
        n_live_flips=1,
        n_never_flipped=6,
        n_oscillating=2,
        n_cohort=5,
        n_retained=4,
    )
    assert (row["flip_rate"], row["live_flip_rate"], row["reversal_frac"]) == (0.1, 0.05, 0.75)
    assert (row["oscillating_frac"], row["never_flipped_frac"]) == (0.2, 0.6)
    assert row["zero_retention_frac"] == 0.8


def test_flips_of_two_windows_add_up_and_cohorts_do_not():
    first = KEY | {"n_flips": 3, "n_flip_slots": 10, "n_cohort": 4, "n_retained": 4}
    second = KEY | {"n_flips": 1, "n_flip_slots": 30, "n_cohort": 4, "n_retained": 2}
    merged = TABLES["transitions"].merge(pl.DataFrame([first, second]), by=["layer"])
    assert merged["flip_rate"].item() == 0.1
    assert merged["zero_retention_frac"].item() == 0.5


def test_replicas_that_are_alike_give_the_rate_of_each():
    one = KEY | {"n_flips": 3, "n_flip_slots": 10, "n_rows": 4, "n_dead_rows": 1}
    both = pl.DataFrame([one, one | {"rank": 1}])
    assert TABLES["transitions"].merge(both, by=["step", "layer"])["flip_rate"].item() == 0.3
    assert TABLES["weights"].merge(both, by=["step", "layer"])["dead_row_frac"].item() == 0.25


def test_width_range_and_clamp_by_hand():
    dynamics = compute("dynamics", fwhm=0.5, n_thresholds=2, sum_threshold=4.0)
    assert (dynamics["surrogate_width"], dynamics["surrogate_width_ratio"]) == (0.5, 0.25)
    row = compute(
        "amplitudes",
        amplitude_min=0.5,
        amplitude_max=2.0,
        n_siblings=2,
        n_tied_siblings=1,
        n_alphas=8,
        n_alphas_pinned=2,
    )
    assert (row["amplitude_range"], row["tied_sibling_frac"]) == (1.5, 0.5)
    assert row["alpha_pinned_frac"] == 0.25


def test_distillation_by_hand():
    row = compute("distillation", n_compared=4, sum_kl=2.0, n_agreed=3)
    assert (row["kd_gap"], row["kd_agreement_frac"]) == (0.5, 0.75)


def test_a_collapsed_layer_has_no_entropy_and_no_scale():
    row = compute("weights", n_weights=8, n_weight_negative=0, n_weight_zero=8, n_weight_positive=0)
    assert row["weight_entropy_bits"] == 0.0
    assert row["scale_positive"] is None


@pytest.mark.parametrize("table", TABLES)
def test_without_evidence_every_metric_is_null(table):
    row = compute(table)
    assert [row[m.name] for m in TABLES[table].metrics] == [None] * len(TABLES[table].metrics)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_what_it_means_and_fractions_are_named_so(name):
    metric = METRICS[name]
    assert metric.meaning.endswith(".")
    assert metric.unit in ("fraction", "bit", "dB", "steps", "pJ", "count", "1")
    if metric.unit == "fraction":
        assert name.endswith("_frac") or name == "mfr"
    if metric.unit == "bit":
        assert name.endswith("_bits")


def test_ranks_merge_by_counters_and_not_by_averages_of_rates():
    big = KEY | {"n_obs": 90, "n_neurons": 2, "n_spikes": 18}
    small = KEY | {"rank": 1, "n_obs": 10, "n_neurons": 2, "n_spikes": 20}
    merged = TABLES["spikes"].merge(pl.DataFrame([big, small]), by=["step", "layer"])
    assert merged["mfr"].item() == 38 / 200
    assert merged.schema == TABLES["spikes"].schema


def test_merging_keeps_null_what_nobody_knows():
    row = KEY | {"n_obs": 1, "n_neurons": 2, "n_spikes": 0}
    merged = TABLES["spikes"].merge(pl.DataFrame([row, row]), by=["layer"])
    assert merged["n_nonfinite_spikes"].item() is None
    assert merged["dead_frac"].item() is None


def test_the_wide_frame_joins_what_the_tables_know_of_a_layer():
    def row(table, layer, **counters):
        return TABLES[table].compute(pl.DataFrame([KEY | {"layer": layer} | counters]))

    scalars = pl.DataFrame(
        [KEY | {"name": "loss", "value": float("nan")}], schema=RECORDS["scalars"]
    )
    wide = widen(
        {
            "spikes": row("spikes", "a", n_obs=1, n_neurons=2, n_spikes=1),
            "gradients": row("gradients", "a", n_sg=2, sum_sg=1.0),
            "weights": row("weights", "b", n_weights=4, n_weight_zero=1),
            "scalars": scalars,
        }
    )
    assert list(wide.schema.items()) == list(COLUMNS.items())
    assert wide["layer"].to_list() == ["a", "b", "loss"]
    by_layer = {r["layer"]: r for r in wide.iter_rows(named=True)}
    assert (by_layer["a"]["mfr"], by_layer["a"]["sg_mean"]) == (0.5, 0.5)
    assert by_layer["b"]["weight_zero_frac"] == 0.25
    assert by_layer["loss"]["n_nonfinite_value"] == 1
    assert by_layer["a"]["value"] is None


def test_keys_come_first_in_every_table():
    assert all(list(t.schema)[: len(KEYS)] == list(KEYS) for t in TABLES.values())
