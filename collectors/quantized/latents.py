"""What the latent weights tell: how well their levels stand for them, how near they are to Δ."""

import torch
from torch import Tensor, nn

from spikewatch.metrics.latent import BOUNDARY, CLIP
from spikewatch.observing import Counters, Counts

from .reading import WeightInstrument, Weights
from .sampling import take


class LatentCounts(WeightInstrument):
    """Sums over latent and quantized weights, in the steps that have the dear readings.

    Of all weights, or of a sample. One number is kept, the size of the latent weights at the first
    look.
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None

    def read(self, weights: Weights) -> Counts | None:
        """Counters of `latent`; None without a latent weight."""
        if not (weights.detailed and weights.has_latent):
            return None
        quantized, latent = weights.sample
        size = latent.abs()
        total = size.sum(dtype=torch.float64)
        if self._first is None:
            self._first = total / size.numel()
        nonzero = torch.ne(quantized, 0, out=torch.empty_like(quantized))
        counters: Counters = {
            "n_latent": latent.numel(),
            "n_latent_zero": quantized.numel() - nonzero.sum(),
            "sum_sq_latent": _dot(latent, latent),
            "sum_latent_quantized": _dot(latent, quantized),
            "sum_sq_quantized": _dot(quantized, quantized),
            "unscaled": (quantized.abs() == nonzero).all(),
            "sum_abs_latent": total,
            "first_mean_abs_latent": self._first.to(total.device),
            "n_clipped": torch.ge(size, CLIP, out=torch.empty_like(size)).sum(),
        }
        return Counts({"latent": counters | _near_boundary(size, weights.deltas)})


def _near_boundary(size: Tensor, deltas: Tensor) -> Counters:
    """Densities of |latent| around Δ. Weights of rows without a Δ are in none of the counts."""
    ratio = size / deltas  # infinite or NaN where Δ is 0
    buffer = torch.empty_like(ratio)
    below = [torch.lt(ratio, edge, out=buffer).sum() for edge in BOUNDARY]
    return {
        "n_deadzone": torch.le(ratio, 1, out=buffer).sum(),
        "n_boundary_inside": below[1] - below[0],
        "n_boundary": below[2] - below[1],
        "n_boundary_outside": below[3] - below[2],
        "median_boundary_distance": _median((ratio - 1).abs()),
    }


class UpdateRatio(WeightInstrument):
    """How far one update moves a latent weight, in units of Δ: read before and after it.

    A sample of the weights is held from the forward pass to the end of the step, in the steps that
    have the dear readings.
    """

    def __init__(self) -> None:
        self._before: Tensor | None = None
        self._n_weights = 0
        self._indices: Tensor | None = None
        self._deltas: Tensor | None = None

    def read(self, weights: Weights) -> None:
        """Hold the latent weights of a training step."""
        if not (weights.detailed and weights.has_latent and weights.phase == "train"):
            return
        latent = weights.sample[1]
        # A view would move along with the update.
        self._before = latent.clone() if weights.few is None else latent
        self._n_weights = weights.latent.numel()
        self._indices, self._deltas = weights.few, weights.deltas

    def end(self, module: nn.Module, latent: Tensor, gradient: Tensor | None) -> Counts | None:  # noqa: ARG002
        """The median |update| / Δ."""
        before, deltas, indices = self._before, self._deltas, self._indices
        self._before = self._deltas = self._indices = None
        if before is None or deltas is None or latent.device != before.device:
            return None
        if latent.numel() != self._n_weights:
            return None  # only a shard of it is here by now
        now = take(latent, indices)
        ratio = (now - before).abs_() / deltas
        return Counts({"latent": {"median_update_ratio": _median(ratio)}})


def _median(x: Tensor) -> Tensor:
    """Of what is finite; NaN without it. To pick that out would have a GPU wait."""
    return x.where(x.isfinite(), torch.nan).nanmedian()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """In pieces, so that the error of float32 does not grow with the layer."""
    parts = [torch.dot(x, y) for x, y in zip(a.split(2**16), b.split(2**16), strict=True)]
    return torch.stack(parts).sum(dtype=torch.float64)
