"""Which figures of one layer are drawn over the steps, and in which card."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lines:
    """A card of lines with a common axis of steps.

    Attributes:
        key: Name of the card on the page.
        title: What it shows.
        lanes: Table, metric and label of each line, from the top.
    """

    key: str
    title: str
    lanes: tuple[tuple[str, str, str], ...]


CARDS = (
    Lines(
        "layer-lines",
        "Firing and gradients",
        (
            ("spikes", "mfr", "firing rate"),
            ("spikes", "dead_frac", "dead neurons"),
            ("gradients", "sg_mean", "mean |σ′|"),
            ("gradients", "grad_rms", "RMS of ∂L/∂s"),
        ),
    ),
    Lines(
        "layer-membrane",
        "Membrane potential",
        (
            ("membrane", "membrane_mean", "mean of (u − θ)/θ"),
            ("membrane", "membrane_std", "standard deviation [θ]"),
            ("membrane", "membrane_psi", "drift from the reference (PSI)"),
            ("membrane", "membrane_quantization_error", "mean of (u/θ − s)²"),
        ),
    ),
    Lines(
        "layer-timing",
        "Time to first spike",
        (
            (
                "timing",
                "ttfs_restricted_steps",
                "mean, silence as the whole sample [steps]",
            ),
            ("timing", "ttfs_censored_frac", "silent through the sample"),
        ),
    ),
    Lines(
        "layer-flow",
        "Gradient through depth and time",
        (
            ("gradients", "grad_depth_ratio", "here / deepest layer"),
            ("gradients", "grad_time_ratio", "first / last time step"),
            ("gradients", "sg_effective_frac", "slots that carry it"),
        ),
    ),
    Lines(
        "layer-dynamics",
        "Threshold and decay",
        (
            ("dynamics", "threshold_mean", "threshold θ"),
            ("dynamics", "decay_mean", "decay β"),
            ("dynamics", "surrogate_width", "surrogate's width at half maximum"),
            ("dynamics", "without_gradient_frac", "parameters without gradient"),
        ),
    ),
    Lines(
        "layer-quantization",
        "Latent and quantized weights",
        (
            ("latent", "sqnr_fitted_db", "SQNR with the best scale [dB]"),
            ("latent", "boundary_pileup", "pile-up at the threshold Δ"),
            ("latent", "latent_drift", "mean |latent| / at first"),
            ("latent", "annealing", "annealing stage λ"),
        ),
    ),
    Lines(
        "layer-transitions",
        "Weights that change their level",
        (
            ("transitions", "flip_rate", "share that flips, an update"),
            ("transitions", "oscillating_frac", "oscillating"),
            ("transitions", "zero_retention_frac", "zeros that stayed 0"),
            ("latent", "update_ratio", "median |Δw| of an update / Δ"),
        ),
    ),
    Lines(
        "layer-scales",
        "Scales",
        (
            ("weights", "scale_positive", "positive level (α, W_p)"),
            ("weights", "scale_negative", "negative level (α, W_n)"),
            ("weights", "dead_row_frac", "outputs with all weights 0"),
        ),
    ),
)
