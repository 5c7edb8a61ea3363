"""What one look at the weights tells: levels, scales, latent weights."""

import torch
from torch import Tensor

from spikewatch.observing import Counters, Counts

from ..amplitudes import EDGES, alpha_counters, histogram
from .reading import Weights


_LATENT_BINS = 64
_LATENT_RANGE = 4.0  # in units of the first mean |latent weight|


class LevelCounts:
    """How the weights spread over {−1, 0, +1}."""

    def read(self, weights: Weights) -> Counts:
        """Counters of `weights`."""
        weight, latent = weights.quantized, weights.latent
        positive, negative, zero = weight > 0, weight < 0, weight == 0
        counters: Counters = {
            "n_weights": weight.numel(),
            "n_weight_negative": negative.sum(),
            "n_weight_zero": zero.sum(),
            "n_weight_positive": positive.sum(),
            "sum_scale_positive": weight.where(positive, 0).sum(dtype=torch.float64),
            "sum_scale_negative": -weight.where(negative, 0).sum(dtype=torch.float64),
            "delta": latent.abs().where(zero, 0).amax() if weights.has_latent else None,
            "n_nonfinite_weights": latent.numel() - latent.isfinite().sum(),
        }
        return Counts({"weights": counters})


class ScaleCounts:
    """Scale α of each output row, or of the tensor."""

    def read(self, weights: Weights) -> Counts:
        """Counters of `amplitudes` and the histogram of α."""
        scales = _row_scales(weights.quantized, by_row=weights.granularity != "tensor")
        return Counts({"amplitudes": alpha_counters(scales)}, [histogram("alpha", scales, EDGES)])


class LatentHistogram:
    """Latent weights over edges fixed at the first look, so that histograms add up."""

    def __init__(self) -> None:
        self._edges: tuple[float, ...] | None = None

    def read(self, weights: Weights) -> Counts:
        """The histogram of the latent weights."""
        latent = weights.latent
        if self._edges is None:
            reach = _LATENT_RANGE * max(float(latent.abs().mean().nan_to_num(0.0)), 1e-12)
            step = 2 * reach / _LATENT_BINS
            self._edges = tuple(step * k - reach for k in range(_LATENT_BINS + 1))
        return Counts({}, [histogram("latent_weight", latent, self._edges)])


def _row_scales(weight: Tensor, *, by_row: bool) -> Tensor:
    """Mean |w| over the nonzero weights: of all, or of each output row. Rows of zeros give 0."""
    rows = weight.flatten(1) if by_row else weight.reshape(1, -1)
    n = rows.ne(0).sum(1)
    return rows.abs().sum(1, dtype=torch.float64) / n.clamp(min=1)
