"""How the weights of a layer spread over their levels, and what these are."""

import torch
from torch import Tensor, nn

from spikewatch.observing import Counters, Counts, Histogram

from ..instruments.amplitudes import EDGES, alpha_counters, histogram
from .level_sums import LevelSums, count_places, n_nonfinite
from .reading import WeightInstrument, Weights


_LATENT_BINS = 64
_LATENT_RANGE = 4.0  # in units of the first mean |latent weight|


class LevelCounts(WeightInstrument):
    """How the weights spread over {−1, 0, +1}; and, where the dear readings are due, dead rows."""

    def read(self, weights: Weights) -> Counts:
        """Counters of `weights`."""
        levels, n = weights.level_sums, weights.quantized.numel()
        counters: Counters = {
            "n_weights": n,
            "n_weight_negative": levels.n_negative.sum(),
            "n_weight_zero": n - levels.n_nonzero.sum(),
            "n_weight_positive": levels.n_positive.sum(),
            "sum_scale_positive": levels.sum_positive.sum(),
            "sum_scale_negative": levels.sum_negative.sum(),
            "n_nonfinite_weights": n_nonfinite(weights.latent),
        }
        if weights.has_latent and weights.detailed:
            counters["delta"] = weights.unit_deltas.amax()
        if weights.detailed:
            counters |= _dead(levels, weights.module)
        return Counts({"weights": counters})


def _dead(levels: LevelSums, module: nn.Module) -> Counters:
    """Outputs and inputs of the layer all of whose weights are 0."""
    rows, columns = levels.n_nonzero > 0, levels.used_columns > 0
    if isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1:
        columns = _columns_of_groups(levels.quantized, module.groups)
        if module.transposed:
            rows, columns = columns, rows  # (in, out of a group, *): no view of it is (out, *)
    return {
        "n_rows": rows.numel(),
        "n_dead_rows": rows.numel() - rows.sum(),
        "n_columns": columns.numel(),
        "n_dead_columns": columns.numel() - columns.sum(),
    }


def _columns_of_groups(weight: Tensor, groups: int) -> Tensor:
    """Whether a column has a weight: those of each group of rows are channels of their own."""
    return weight.ne(0).flatten(2).any(2).unflatten(0, (groups, -1)).any(1).flatten()


class ScaleCounts(WeightInstrument):
    """Scale α of each output row, or of the tensor: mean |w| over the nonzero weights."""

    def read(self, weights: Weights) -> Counts:
        """Counters of `amplitudes` and, where the dear readings are due, the histogram of α."""
        levels = weights.level_sums
        n, total = levels.n_nonzero, levels.sum_positive + levels.sum_negative
        if weights.granularity == "tensor":
            n, total = n.sum(0, keepdim=True), total.sum(0, keepdim=True)
        scales = total / n.clamp(min=1)  # rows of zeros give 0
        histograms = [histogram("alpha", scales, EDGES)] if weights.detailed else []
        return Counts({"amplitudes": alpha_counters(scales)}, histograms)


class LatentHistogram(WeightInstrument):
    """Latent weights over edges fixed at the first look, so that histograms add up.

    Of the weights that are followed, where the dear readings are due.
    """

    def __init__(self) -> None:
        self._edges: tuple[float, ...] | None = None

    def read(self, weights: Weights) -> Counts | None:
        """The histogram of the latent weights."""
        if not weights.detailed:
            return None
        latent = weights.sample[1]
        if self._edges is None:
            mean = float(torch.linalg.vector_norm(latent, 1)) / max(1, latent.numel())
            reach = _LATENT_RANGE * (mean if 1e-12 < mean < float("inf") else 1e-12)
            step = 2 * reach / _LATENT_BINS
            self._edges = tuple(step * k - reach for k in range(_LATENT_BINS + 1))
        first, width = self._edges[0], self._edges[1] - self._edges[0]
        # Edges at equal distances: ten times as fast as looking for the place of each weight.
        places = ((latent - first) / width).floor_().clamp_(-1, _LATENT_BINS)
        places.nan_to_num_(nan=_LATENT_BINS + 1)  # a place beyond all, that is not handed over
        counts = count_places(places.long().add_(1), _LATENT_BINS + 3)
        return Counts(
            {}, [Histogram("latent_weight", self._edges, counts[1:-2], counts[0], counts[-2])]
        )
