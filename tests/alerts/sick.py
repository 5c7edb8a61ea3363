"""Layers that are ill, one for each shipped rule."""

import math


SLOTS = 51_200  # as in conftest.py
NAN, INF = math.nan, math.inf

# For each rule a layer and what its counters are when it is ill that way, with all that comes along
# in practice: a silent layer has no membrane near threshold either, NaN amplitudes make NaN spikes.
SILENT = {"n_spikes": 0, "n_positive": 0, "sum_abs_spike": 0.0, "n_dead": 100} | {
    "n_sg_active": 0,
    "n_carrying": 0,
}
FIRING = {"n_spikes": 48_000, "n_positive": 48_000, "sum_abs_spike": 48_000.0}
AMPLITUDES_NAN = {"sum_amplitude": NAN, "amplitude_min": NAN, "amplitude_max": NAN}
ALPHAS_NAN = {"sum_alpha": NAN, "alpha_min": NAN, "alpha_max": NAN}
COLLAPSED = {"n_weight_zero": 995, "n_weight_negative": 3, "n_weight_positive": 2}
SICK = {
    "dead-neurons": ("lif", {"n_dead": 10, "n_carrying": 92}),
    "many-dead-neurons": ("lif", {"n_dead": 50, "n_carrying": 60}),
    "dead-layer": ("lif", SILENT),
    "dead-channels": ("tern", {"n_dead": 10, "n_dead_channels": 1, "n_carrying": 92}),
    "saturated-neurons": ("lif", {"n_saturated": 8}),
    "many-saturated-neurons": ("lif", FIRING | {"n_saturated": 95, "n_sg_active": 0}),
    "low-rate": (
        "lif",
        {"n_spikes": 200, "n_positive": 200, "sum_abs_spike": 200.0, "n_dead": 4},
    ),
    "high-rate": ("lif", FIRING),
    "one-sided-spikes": ("tern", {"n_positive": SLOTS // 10 - 1}),
    "gradient-explodes": ("lif", {"sum_sq_grad": 10.0}),
    "membrane-drifts": ("lif", {"sum_z": 18_432.0, "sum_sq_z": 84_000.0}),
    "membrane-loses-more": ("lif", {"sum_sq_quantization": 500_000.0}),
    "no-memory": ("lif", {"sum_decay": 0.001, "decay_min": 0.001, "decay_max": 0.001}),
    "amplitudes-run-apart": ("tern", {"sum_sq_amplitude": 13.0}),
    "loss-explodes": ("loss", {"value": 5.0}),
    "vanished-gradient": ("lif", {"sum_sq_grad": 0.0}),
    "vanished-surrogate-gradient": ("lif", {"n_sg_active": 20}),
    "narrow-surrogate": ("lif", {"n_sg_active": 1500}),
    "negative-surrogate": ("lif", {"n_sg_negative": 1}),
    "detached-layer": ("lif", {"n_grad": 0, "sum_sq_grad": None}),
    "no-surrogate-gradient": (
        "lif",
        {"is_cut": 1, "n_grad": None, "sum_sq_grad": None, "n_sg": None, "n_sg_active": None},
    ),
    "gradient-vanishes-with-depth": ("lif", {"sum_sq_grad_deepest": 1e8}),
    "gradient-vanishes-through-time": ("lif", {"sum_sq_grad_first": 1e-16}),
    "runaway-membrane": ("lif", {"n_runaway": 1400}),
    "threshold-out-of-range": ("lif", {"n_thresholds_out": 1}),
    "decay-out-of-range": ("lif", {"decay_max": 1.2}),
    "learns-nothing": ("lif", {"n_without_gradient": 1, "without_gradient_rows": 7}),
    "threshold-pinned": ("lif", {"n_thresholds_pinned": 8}),
    "amplitude-too-large": ("tern", {"amplitude_max": 4.2}),
    "amplitude-too-small": ("tern", {"amplitude_min": 0.1}),
    "amplitude-flipped": ("tern", {"amplitude_min": -0.2}),
    "spikes-out-of-range": ("lif", {"sum_abs_spike": SLOTS / 10 * 5}),
    "alpha-pinned": ("tern", {"n_alphas_pinned": 1, "alpha_max": 10.0}),
    "amplitudes-tied-to-sibling": ("tern", {"n_tied_siblings": 1}),
    "surrogate-too-narrow": ("lif", {"fwhm": 0.004}),
    "ternary-collapse": ("fc", COLLAPSED),
    "ternary-near-collapse": (
        "fc",
        {"n_weight_zero": 900, "n_weight_negative": 50, "n_weight_positive": 50},
    ),
    "nearly-binary": (
        "fc",
        {"n_weight_zero": 1, "n_weight_negative": 499, "n_weight_positive": 500},
    ),
    "unequal-scales": ("fc", {"sum_scale_negative": 3.0}),
    "scale-not-positive": ("fc", {"n_scales_not_positive": 1}),
    "scale-learns-nothing": (
        "fc",
        {"n_scales_without_gradient": 1, "scale_without_gradient_rows": 9},
    ),
    "estimator-climbs": ("fc", {"sum_dot_gradients": -9e-5}),
    "estimator-cuts-off-zeros": ("fc", {"n_zeros_reached": 4}),
    "scale-gradient-turned": ("fc", {"n_scale_gradients_turned": 1}),
    "dead-weight-rows": ("fc", {"n_dead_rows": 5}),
    "weights-pile-up": ("fc", {"n_boundary": 1200}),
    "frozen-weights": ("fc", {"n_flips": 0, "slots_since_flip": 4_000_000}),
    "restless-weights": ("fc", {"n_flips": 80}),
    "oscillating-weights": ("fc", {"n_oscillating": 400}),
    "low-sqnr": ("fc", {"sum_latent_quantized": 2.0}),
    "latent-weights-drift": ("fc", {"sum_abs_latent": 600.0}),
    "annealing-stuck": ("fc", {"annealing_lambda": 0.5, "annealing_clock": 0.5}),
    "ternary-first-or-last": ("fc", {"is_last_layer": 1}),
    "leaves-its-teacher": ("teacher", {"sum_kl": 60.0}),
    "non-finite-value": ("loss", {"value": NAN}),
    "non-finite-weights": (
        "fc",
        {"n_nonfinite_weights": 1000, "n_weight_zero": 1000, "delta": NAN}
        | {"n_weight_negative": 0, "n_weight_positive": 0, "sum_alpha": NAN},
    ),
    "non-finite-spikes": ("lif", {"n_nonfinite_spikes": 1, "n_saturated": 100}),
    "non-finite-membrane": ("lif", SILENT | {"n_sg_nonfinite": 8, "n_nonfinite_grad": 1}),
    "non-finite-amplitude": ("tern", AMPLITUDES_NAN | ALPHAS_NAN),
    "non-finite-alpha": ("tern", ALPHAS_NAN),
    "non-finite-gradient": ("lif", {"n_nonfinite_grad": 1, "n_grad": 0, "sum_sq_grad": 0.0}),
}
