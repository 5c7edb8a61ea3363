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
    """Adds ∂L/∂w_t up at a sample of the weights, in the steps that have the dear readings."""

    def __init__(self) -> None:
        self._n = 0
        self._indices: Tensor | None = None
        self._total: Tensor | None = None  # of ∂L/∂w_t at the sample
        self._at_zero: Tensor | None = None
        self._sides: Tensor | None = None  # Σ ∂L/∂w_t of each row's positive and negative weights
        self._comparable = True

    def read(self, weights: Weights) -> None:  # noqa: ARG002
        """Begin a step."""
        self.__init__()

    def gradient(self, module: nn.Module, quantized: Tensor, gradient: Tensor) -> None:
        """Add ∂L/∂w_t of one forward pass."""
        if self._total is None or self._at_zero is None:
            self._n = n = quantized.numel()
            if n > MOST_NUMBERS:
                self._indices = strata(n, MOST_NUMBERS, device=quantized.device)
            self._at_zero = take(quantized, self._indices) == 0
            self._total = torch.zeros_like(self._at_zero, dtype=torch.float32)
        if self._total.device != gradient.device or self._n != gradient.numel():
            self._comparable = False  # replicas, each of which sees a part of the batch
            return
        self._total += take(gradient, self._indices)
        if len(_scales_by_side(module)) == 2:
            sides = _sides(quantized, gradient)
            self._sides = sides if self._sides is None else self._sides + sides

    def end(self, module: nn.Module, latent: Tensor, gradient: Tensor | None) -> Counts | None:  # noqa: ARG002
        """Counters of `estimator`; None where gradients were not seen on both sides."""
        done = EstimatorGradients()
        done.__dict__, self.__dict__ = self.__dict__, done.__dict__
        return done._counts(module, gradient)

    def _counts(self, module: nn.Module, gradient: Tensor | None) -> Counts | None:
        total, at_zero = self._total, self._at_zero
        if total is None or at_zero is None or not self._comparable or _averaged_over_ranks():
            return None
        counters: Counters = {}
        if gradient is not None and gradient.device == total.device and gradient.numel() == self._n:
            counters |= _both_sides(total, take(gradient, self._indices).float(), at_zero)
        if self._sides is not None:
            counters |= _turned(module, self._sides)
        return Counts({"estimator": counters}) if counters else None


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
