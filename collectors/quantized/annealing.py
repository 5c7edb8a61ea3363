"""How far a layer has gone from full precision to ternary weights.

Annealed weights are w = w̃ + λ(q − w̃), with q the ternary weights that they become, and λ rising
from 0 to 1. Where the layer holds a λ it is read. Else some q are tried: TWN's and BitNet's, for
the layer and by row. The projection λ̂ = ⟨w − w̃, q − w̃⟩ / ‖q − w̃‖² recovers λ exactly if q is right.
How much of w − w̃ it explains says whether it is; other ways from w̃ to q (a softened step) are
explained in part, and λ̂ then is a proxy of the stage.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from spikewatch.metrics.latent import LEAST_EXPLAINED
from spikewatch.observing import Counts, OnHost

from .reading import WeightInstrument, Weights


_OWN = ("lambda_", "lmbda", "quant_lambda", "annealing")
_MOST = 65_536
_NAMES = ("annealing_lambda", "annealing_explained")


class AnnealingStage(WeightInstrument):
    """Reads λ of the layer, or finds it by projection, where the dear readings are due."""

    before_levels = True

    def read(self, weights: Weights) -> Counts | None:
        """The counters of `_NAMES` in `latent`; None where the weights are not on their way."""
        if not weights.detailed:
            return None
        own = _own_lambda(weights.module)
        if own is not None:
            return Counts({"latent": {_NAMES[0]: own, _NAMES[1]: 1.0}})
        levels = weights.levels
        if weights.granularity is not None and (levels is None or levels.form == "ternary"):
            return Counts({"latent": {_NAMES[0]: 1.0, _NAMES[1]: 1.0}})
        if not weights.has_latent:
            return None
        readings = _projections(_some_rows(weights.quantized), _some_rows(weights.latent))
        return Counts({"latent": {_NAMES: OnHost(readings, _fold)}})


def stage_of(weight: Tensor, latent: Tensor) -> float | None:
    """λ̂ of weights that are on their way from `latent` to ternary ones; None if they are not."""
    readings = _projections(_some_rows(weight), _some_rows(latent))
    return _fold(readings.tolist())[_NAMES[0]]


def _own_lambda(module: nn.Module) -> Tensor | float | None:
    for name in _OWN:
        value = getattr(module, name, None)
        if isinstance(value, Tensor) and value.numel() == 1:
            return value.detach().reshape(()).double()
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
            return float(value)
    return None


def _some_rows(x: Tensor) -> Tensor:
    """Rows, evenly spread, of `_MOST` weights together: [rows, size] in float32 at least."""
    rows = x if x.dim() > 1 else x.reshape(1, -1)
    rows = rows[:: -(-x.numel() // _MOST)].flatten(1)
    return rows if rows.dtype == torch.float64 else rows.float()


def _projections(weight: Tensor, latent: Tensor) -> Tensor:
    """λ̂ and the share of ‖w − w̃‖² that it explains, for each candidate: flat, float64."""
    went = weight - latent
    length = went.square().sum().clamp(min=torch.finfo(went.dtype).tiny)
    found = []
    for ternary in _candidates(latent):
        way = ternary - latent
        squared = way.square().sum().clamp(min=torch.finfo(way.dtype).tiny)
        along = (went * way).sum()
        found += [along / squared, along.square() / (squared * length)]
    return torch.stack(found).double()


def _candidates(latent: Tensor) -> Iterator[Tensor]:
    size = latent.abs()
    for mean in (size.mean(), size.mean(1, keepdim=True)):
        beyond = (size > 0.7 * mean).to(latent.dtype)  # TWN
        dims = (1,) if mean.dim() else (0, 1)
        n = beyond.sum(dims, keepdim=True).clamp(min=1)
        yield (size * beyond).sum(dims, keepdim=True) / n * latent.sign() * beyond
        least = torch.finfo(latent.dtype).tiny
        yield (latent / mean.clamp(min=least)).round().clamp(-1, 1) * mean  # BitNet b1.58


def _fold(readings: list[float]) -> dict[str, float | None]:
    """λ̂ of the candidate that explains most, if it does so well, and forwards."""
    best = max(zip(readings[::2], readings[1::2], strict=True), key=lambda pair: pair[1])
    on_its_way = best[1] >= LEAST_EXPLAINED and 0 < best[0] <= 1.02
    return dict(zip(_NAMES, best if on_its_way else (None, None), strict=True))
