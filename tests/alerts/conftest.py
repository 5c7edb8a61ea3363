"""Rows of layers as the collectors leave them: healthy, unless a test says otherwise."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest

from spikewatch.metrics import RECORDS, TABLES
from spikewatch.metrics.wide import widen


NOON = datetime(2026, 1, 2, 12)
N, SLOTS = 100, 51_200

SPIKES = {
    "n_obs": 512,
    "n_neurons": N,
    "n_spikes": SLOTS // 10,
    "n_positive": SLOTS // 10,
    "sum_abs_spike": SLOTS / 10,
    "n_nonfinite_spikes": 0,
    "is_graded": None,
    "is_multilevel": 0,
    "evidence_n_obs": 2995,
    "n_dead": 1,
    "n_never_fired": 1,
    "n_channels": None,
    "n_dead_channels": None,
    "n_saturated": 0,
}
GRADIENTS = {
    "n_sg": SLOTS,
    "sum_sg": SLOTS / 5,
    "sum_sq_sg": SLOTS / 10,
    "n_sg_active": SLOTS // 2,
    "n_sg_nonfinite": 0,
    "n_sg_negative": 0,
    "n_sg_neurons": N,
    "n_carrying": N,
    "n_grad": SLOTS,
    "sum_sq_grad": 1e-4,
    "n_nonfinite_grad": 0,
    "n_grad_deepest": SLOTS,
    "sum_sq_grad_deepest": 1e-4,
    "is_unused": 0,
    "is_cut": 0,
    "sum_sq_grad_first": 1e-5,
    "sum_sq_grad_last": 1e-5,
}
MEMBRANE = {
    "n_membrane": 4096,
    "sum_z": -2048.0,
    "sum_sq_z": 2048.0,
    "n_runaway": 0,
    "n_quantization": 4096,
    "sum_sq_quantization": 4096.0,
    "reference_n_membrane": 4096,
    "reference_sum_z": -2048.0,
    "reference_sum_sq_z": 2048.0,
}
DYNAMICS = {
    "n_thresholds": 100,
    "n_thresholds_out": 0,
    "n_thresholds_pinned": 0,
    "n_decays": 1,
    "sum_decay": 0.9,
    "decay_min": 0.9,
    "decay_max": 0.9,
    "fwhm": 0.64,
    "sum_threshold": 100.0,
    "n_learnable": 1,
    "n_without_gradient": 0,
    "without_gradient_rows": 0,
}
AMPLITUDES = {
    "n_amplitudes": 4,
    "sum_amplitude": 4.0,
    "sum_sq_amplitude": 4.04,
    "amplitude_min": 0.9,
    "amplitude_max": 1.1,
    "n_amplitudes_out": 0,
    "n_trainable_amplitudes": 4,
    "n_siblings": 1,
    "n_tied_siblings": 0,
    "n_alphas": 4,
    "sum_alpha": 4.0,
    "alpha_min": 0.9,
    "alpha_max": 1.1,
    "n_alphas_pinned": 0,
}
WEIGHTS = {
    "n_weights": 1000,
    "n_weight_negative": 300,
    "n_weight_zero": 400,
    "n_weight_positive": 300,
    "sum_scale_positive": 30.0,
    "sum_scale_negative": 30.0,
    "delta": 0.05,
    "n_nonfinite_weights": 0,
    "n_rows": 100,
    "n_dead_rows": 0,
    "n_columns": 10,
    "n_dead_columns": 0,
    "n_scales": 2,
    "n_scales_not_positive": 0,
    "n_learnable_scales": 2,
    "n_scales_without_gradient": 0,
    "scale_without_gradient_rows": 0,
    "is_first_layer": 0,
    "is_last_layer": 0,
    "n_model_weights": 1200,
    "n_ternary_weights": 1000,
}
LATENT = {
    "n_latent": 1000,
    "n_latent_zero": 400,
    "sum_sq_latent": 5.0,
    "sum_latent_quantized": 4.0,
    "sum_sq_quantized": 4.0,
    "unscaled": 0,
    "sum_abs_latent": 60.0,
    "first_mean_abs_latent": 0.05,
    "n_clipped": 0,
    "n_deadzone": 400,
    "n_boundary_inside": 200,
    "n_boundary": 200,
    "n_boundary_outside": 200,
    "median_boundary_distance": 0.6,
    "median_update_ratio": 0.004,
    "annealing_lambda": 1.0,
    "annealing_explained": 1.0,
    "annealing_clock": 1.0,
}
TRANSITIONS = {
    "n_tracked": 1000,
    "n_followed_of": 1000,
    "look_gap_steps": 1,
    "n_flip_slots": 1000,
    "n_flips": 2,
    "n_reversals": 1,
    "n_live_slots": 600,
    "n_live_flips": 1,
    "n_never_flipped": 700,
    "slots_since_flip": 0,
    "n_oscillating": 40,
    "n_cohort": 400,
    "n_retained": 200,
    "cohort_age_steps": 600,
}
ESTIMATOR = {
    "sum_dot_gradients": 9e-5,
    "sum_sq_gradient_quantized": 1e-4,
    "sum_sq_gradient_latent": 1e-4,
    "n_zeros_graded": 400,
    "n_zeros_reached": 400,
    "n_scale_gradients": 2,
    "n_scale_gradients_turned": 0,
}
DISTILLATION = {"n_compared": 64, "sum_kl": 12.8, "n_agreed": 60}
# A LIF layer, ternary spikes with an amplitude, ternary weights (whose scale is an α), the loss.
HEALTHY: dict[str, dict[str, dict[str, Any]]] = {
    "lif": {
        "spikes": SPIKES,
        "gradients": GRADIENTS,
        "membrane": MEMBRANE,
        "dynamics": DYNAMICS,
    },
    "tern": {
        "spikes": SPIKES | {"n_positive": SLOTS // 20, "n_channels": 10, "n_dead_channels": 0},
        "gradients": GRADIENTS,
        "amplitudes": AMPLITUDES,
    },
    "fc": {
        "weights": WEIGHTS,
        "latent": LATENT,
        "transitions": TRANSITIONS,
        "estimator": ESTIMATOR,
        "amplitudes": {"n_alphas": 1, "sum_alpha": 0.1, "alpha_min": 0.1, "alpha_max": 0.1},
    },
    "teacher": {"distillation": DISTILLATION},
    "loss": {"scalars": {"value": 0.5}},
    "accuracy_gap": {"scalars": {"value": 0.01}},
}


def tables_of(steps: range, *, phase: str = "train", **sick: dict[str, Any]) -> dict[str, Any]:
    """The tables of some steps; `sick` says which counters of a layer are otherwise."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for step in steps:
        for layer, parts in HEALTHY.items():
            for table, counters in parts.items():
                keys = {"run": "r", "rank": 0, "phase": phase, "step": step, "layer": layer}
                changed = {k: v for k, v in sick.get(layer, {}).items() if k in counters}
                learnt = {"value": counters["value"] * 0.999**step} if table == "scalars" else {}
                at = {"at": NOON + timedelta(seconds=step)}
                row = keys | at | counters | learnt | changed
                rows.setdefault(table, []).append(row)
    scalars = [{**r, "name": r["layer"]} for r in rows.pop("scalars")]
    frames = {name: TABLES[name].compute(pl.DataFrame(r)) for name, r in rows.items()}
    schema = RECORDS["scalars"]
    return frames | {
        "scalars": pl.DataFrame([{c: r[c] for c in schema} for r in scalars], schema=schema)
    }


@pytest.fixture(scope="session")
def tables() -> Callable[..., dict[str, Any]]:
    return tables_of


@pytest.fixture(scope="session")
def wide() -> Callable[..., pl.DataFrame]:
    return lambda steps, **more: widen(tables_of(steps, **more))


@pytest.fixture
def alert() -> Callable[..., dict[str, Any]]:
    """A row of the table `alerts`."""

    def make(**changed: Any) -> dict[str, Any]:
        row = {
            "run": "r",
            "rank": 0,
            "phase": "train",
            "step": 14,
            "layer": "lif1",
            "at": NOON,
            "rule": "dead-neurons",
            "severity": "critical",
            "state": "firing",
            "since_step": 12,
            "metric": "dead_frac",
            "value": 0.83,
            "summary": "Neurons are dead.",
            "likely": "threshold too high",
            "advice": "lower it",
            "root_rule": None,
            "root_layer": None,
            "n_following": 0,
        }
        return row | changed

    return make
