"""Whether gradient gets through a quantizer as it should: on both sides of it, and at its scales.

∂L/∂w_t comes by in the backward pass, once for each forward pass that multiplied with the weight;
∂L/∂w̃ is what the parameter holds when the step ends.
"""

import re

import torch
from torch import Tensor, distributed, nn

from spikewatch.observing import Counters, Counts

from .reading import MOST_NUMBERS, WeightInstrument, Weights
from .sampling import strata, take


# Scales of one side, by the names that code gives them: w_p, Wn, alpha_pos, scale_negative.
_ONE_SIDE = re.compile(r"(?:w|a|alpha|scale)_?(?P<side>p|n|pos|neg|positive|negative)", re.I)
# Both sides are multiplied by the same factor where gradients are scaled or clipped. A penalty on
# one of them may turn its gradient too, but hardly ever to what the opposite would be.
_ALIKE = 2.0


class EstimatorGradients(WeightInstrument):
    """Compares both sides of a quantizer, in the steps that have the dear readings."""

    def __init__(self) -> None:
        self._seen: _Seen | None = None

    def read(self, weights: Weights) -> None:  # noqa: ARG002
        """Begin a step."""
        self._seen = None

    def gradient(self, module: nn.Module, quantized: Tensor, gradient: Tensor) -> None:
        """Add ∂L/∂w_t of one forward pass."""
        if self._seen is None:
            self._seen = _Seen(quantized)
        self._seen.add(module, quantized, gradient)

    def end(self, module: nn.Module, latent: Tensor, gradient: Tensor | None) -> Counts | None:  # noqa: ARG002
        """Counters of `estimator`; None where gradients were not seen on both sides."""
        seen, self._seen = self._seen, None
        if seen is None or not seen.comparable or _averaged_over_ranks():
            return None
        counters = seen.beside(gradient)
        if seen.sides is not None:
            counters |= _turned(module, seen.sides)
        return Counts({"estimator": counters}) if counters else None


class _Seen:
    """∂L/∂w_t of one step, added up at a sample of the weights.

    Attributes:
        comparable: Whether all of it was seen.
        sides: Σ ∂L/∂w_t of each row's positive and negative weights, [2, rows].
    """

    def __init__(self, quantized: Tensor) -> None:
        self.comparable = True
        self.sides: Tensor | None = None
        self._n = n = quantized.numel()
        many = n > MOST_NUMBERS
        self._indices = strata(n, MOST_NUMBERS, device=quantized.device) if many else None
        self._at_zero = take(quantized, self._indices) == 0
        self._total = torch.zeros_like(self._at_zero, dtype=torch.float32)

    def add(self, module: nn.Module, quantized: Tensor, gradient: Tensor) -> None:
        """Add the gradient of one forward pass."""
        if not self._fits(gradient):
            self.comparable = False  # replicas, each of which sees a part of the batch
            return
        self._total += take(gradient, self._indices)
        if len(_scales_by_side(module)) == 2:
            sides = _sides(quantized, gradient)
            self.sides = sides if self.sides is None else self.sides + sides

    def beside(self, gradient: Tensor | None) -> Counters:
        """Counters of it beside ∂L/∂w̃; empty without that."""
        if gradient is None or not self._fits(gradient):
            return {}
        return _both_sides(self._total, take(gradient, self._indices).float(), self._at_zero)

    def _fits(self, gradient: Tensor) -> bool:
        return gradient.device == self._total.device and gradient.numel() == self._n


def _both_sides(quantized: Tensor, latent: Tensor, at_zero: Tensor) -> Counters:
    graded = at_zero & (quantized != 0)
    return {
        "sum_dot_gradients": torch.dot(quantized, latent),
        "sum_sq_gradient_quantized": torch.dot(quantized, quantized),
        "sum_sq_gradient_latent": torch.dot(latent, latent),
        "n_zeros_graded": graded.sum(),
        "n_zeros_reached": (graded & (latent != 0)).sum(),
    }


def _sides(quantized: Tensor, gradient: Tensor) -> Tensor:
    """Σ ∂L/∂w_t over the positive weights of each row, and over the negative ones: [2, rows]."""
    levels, slopes = quantized.flatten(1), gradient.flatten(1)
    return torch.stack([(slopes * side).sum(1) for side in (levels > 0, levels < 0)])


def _turned(module: nn.Module, sides: Tensor) -> Counters:
    """How many scales of one side there are, and how many have the opposite of their gradient."""
    ratios = []
    scales = _scales_by_side(module)
    for scale, should in ((scales["p"], sides[0]), (scales["n"], -sides[1])):
        found = scale.grad
        if found is None or found.device != should.device:
            return {}
        should = should.sum().reshape(1) if found.numel() == 1 else should
        if found.numel() != should.numel():
            return {}
        ratios.append(found.detach().float().reshape(-1) / should)
    positive, negative = ratios
    size = (negative / positive).abs()
    alike = (size > 1 / _ALIKE) & (size < _ALIKE)
    turned = sum((alike & (ratio < 0)).sum() for ratio in ratios)
    return {"n_scale_gradients": 2 * positive.numel(), "n_scale_gradients_turned": turned}


def _scales_by_side(module: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable scales of the positive (`p`) and of the negative (`n`) level."""
    found = {}
    for name, parameter in module.named_parameters(recurse=False):
        match = _ONE_SIDE.fullmatch(name)
        if match and parameter.requires_grad:
            found[match["side"][0].lower()] = parameter
    return found


def _averaged_over_ranks() -> bool:
    """Whether the parameter's gradient is the mean over ranks, and not this rank's own."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )
