"""How far a layer has gone from full precision to ternary weights.

Annealed weights are w = w̃ + λ(q − w̃), with q the ternary weights that they become, and λ rising
from 0 to 1. Where the layer holds a λ it is read. Else some q are tried: TWN's, BitNet's and those
of min-max observers, for the layer and by row. The projection λ̂ = ⟨w − w̃, q − w̃⟩ / ‖q − w̃‖²
recovers λ exactly if q is right. How much of w − w̃ it explains says whether it is: more than a
change of length alone (weight normalisation) does, which is tried as well, as q = 0.

Ways from w̃ to q that are no straight line (a softened step that is still hot) are told by how much
nearer w is to ternary weights than w̃: 1 − ρ(w)/ρ(w̃), where ρ is the distance to TWN's ternary
weights over the length. That stands for the stage and is no evidence of annealing: it is read of
layers only that say that they have a stage.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from spikewatch.metrics.latent import LEAST_EXPLAINED
from spikewatch.observing import Counts, OnHost

from ..attributes import read
from .reading import WeightInstrument, Weights


_OWN = ("lambda_", "lmbda", "quant_lambda", "annealing")
# What else a layer counts its way by; whole or not, it is what moves as annealing goes on.
_CLOCKS = ("temperature", "tau", "temp", "progress")
_MOST = 65_536
_NAMES = ("annealing_lambda", "annealing_explained", "annealing_clock")


class AnnealingStage(WeightInstrument):
    """Reads λ of the layer, or finds it by projection, where the dear readings are due."""

    before_levels = True

    def read(self, weights: Weights) -> Counts | None:
        """The counters of `_NAMES` in `latent`; None where the weights are not on their way."""
        if not weights.detailed:
            return None
        own = _number(weights.module, _OWN)
        if own is not None and (isinstance(own, Tensor) or 0 <= own <= 1):
            return Counts({"latent": dict(zip(_NAMES, (own, 1.0, own), strict=True))})
        levels = weights.levels
        if weights.granularity is not None and (levels is None or levels.form == "ternary"):
            return Counts({"latent": dict.fromkeys(_NAMES, 1.0)})
        if not weights.has_latent:
            return None
        weight, latent = _some_rows(weights.quantized), _some_rows(weights.latent)
        clock = _number(weights.module, _CLOCKS)
        nearer = 1 - _from_ternary(weight) / _from_ternary(latent)
        told = torch.as_tensor(math.nan if clock is None else clock).to(nearer)
        readings = torch.cat([_projections(weight, latent), torch.stack([nearer, told]).double()])
        return Counts({"latent": {_NAMES: OnHost(readings, _fold_all)}})


def stage_of(weight: Tensor, latent: Tensor) -> float | None:
    """λ̂ of weights that are on their way from `latent` to ternary ones; None if they are not."""
    readings = _projections(_some_rows(weight), _some_rows(latent))
    return _fold(readings.tolist())[0]


def own_lambda(module: nn.Module) -> float | None:
    """The λ that a layer holds, on the host; None without one, or where it is on another device."""
    own = _number(module, _OWN)
    if isinstance(own, Tensor):
        return own.item() if own.device.type == "cpu" else None
    return own


def _number(module: nn.Module, names: tuple[str, ...]) -> Tensor | float | None:
    """The first of these that the module, or a part of it, holds as a number."""
    for part in (module, *module.children()):
        for name in names:
            value = read(part, name)
            if isinstance(value, Tensor) and value.numel() == 1:
                return value.detach().reshape(()).double()
            if isinstance(value, int | float) and not isinstance(value, bool):
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
    """Zeros, and ternary weights that these latent ones may become."""
    yield torch.zeros_like(latent)
    size, least = latent.abs(), torch.finfo(latent.dtype).tiny
    for mean in (size.mean(), size.mean(1, keepdim=True)):
        beyond = (size > 0.7 * mean).to(latent.dtype)  # TWN
        dims = (1,) if mean.dim() else (0, 1)
        n = beyond.sum(dims, keepdim=True).clamp(min=1)
        yield (size * beyond).sum(dims, keepdim=True) / n * latent.sign() * beyond
        yield (latent / mean.clamp(min=least)).round().clamp(-1, 1) * mean  # BitNet b1.58
    for most in (size.amax(), size.amax(1, keepdim=True)):
        yield (latent / most.clamp(min=least)).round() * most  # min-max observers


def _from_ternary(rows: Tensor) -> Tensor:
    """ρ: ‖w − αt‖ / ‖w‖ for TWN's t and α of each row, in float32 at least; a 0-d tensor."""
    size = rows.abs()
    beyond = (size > 0.7 * size.mean(1, keepdim=True)).to(rows.dtype)
    alpha = (size * beyond).sum(1, keepdim=True) / beyond.sum(1, keepdim=True).clamp(min=1)
    noise, signal = (size - alpha * beyond).square().sum(), rows.square().sum()
    return (noise / signal.clamp(min=torch.finfo(rows.dtype).tiny)).sqrt()


def _fold(readings: list[float]) -> tuple[float | None, float | None]:
    """λ̂ of the candidate that explains most, if it does so well, and forwards; and how much."""
    shorter, *ternary = zip(readings[::2], readings[1::2], strict=True)
    best = max(ternary, key=lambda pair: pair[1])
    explained = best[1] >= max(LEAST_EXPLAINED, shorter[1])
    on_its_way = explained and 0 < best[0] <= 1.02
    return best if on_its_way else (None, None)


def _fold_all(readings: list[float]) -> dict[str, float | None]:
    """The counters: of the straight way, or else of how much nearer the weights have come."""
    *straight, nearer, clock = readings
    stage, explained = _fold(straight)
    if stage is None:
        stage = max(0.0, nearer)
    told = (stage, explained, stage if math.isnan(clock) else clock)
    return dict(zip(_NAMES, told, strict=True))
