"""The parameters of a quantizer itself: W_p and W_n, a step size, α, a temperature."""

import re

import torch
from torch import Tensor, nn

from spikewatch.observing import Counts

from ..idle_parameters import IdleParameters
from .place import Containers, is_matrix
from .reading import WeightInstrument, Weights


# Scales of levels, by the names that code gives them; 0 or below they turn or lose a level.
_SCALE = re.compile(
    r"(w_?[pn]|a_?[pn]|alphas?|scales?|scaling(_factor)?|weight_scale|step(_size)?|s)", re.I
)
# Not the quantizer's: the weight itself, the bias, and those of layers within.
_NOT_OF_QUANTIZER = re.compile(
    r"(weight|bias)(_(fp|data|latent|orig|shadow|ternary))?|b|original\d*"
)


class OwnScales(WeightInstrument):
    """Reads the sign of the quantizer's scales, and whether gradient reaches its parameters.

    A scale below 0 leaves weights that have no ternary levels any more: once they had some, it goes
    on reading.
    """

    after_levels = True

    def __init__(self) -> None:
        self._was_ternary = False
        self._idle = IdleParameters(
            "n_learnable_scales", "n_scales_without_gradient", "scale_without_gradient_rows"
        )

    def read(self, weights: Weights) -> Counts | None:
        """Counters of the scales; None where the quantizer has no parameters that are scales."""
        self._was_ternary |= weights.granularity is not None
        if not (weights.detailed and self._was_ternary):
            return None
        scales = [
            p.detach().flatten().float()
            for name, p in _own(weights.module).items()
            if _SCALE.fullmatch(name.rpartition(".")[2])
        ]
        if not scales:
            return None
        values = torch.cat([s.to(scales[0].device) for s in scales])
        counters = {
            "n_scales": values.numel(),
            "n_scales_not_positive": values.numel() - (values > 0).sum(),
        }
        return Counts({"weights": counters})

    def end(self, module: nn.Module, latent: Tensor, gradient: Tensor | None) -> Counts | None:  # noqa: ARG002
        """Counters of the gradients; None where the layer's weight had none to begin with."""
        learnable = {n: p for n, p in _own(module).items() if p.requires_grad}
        if not learnable or not _has_gradient(module):
            return None
        return Counts({"weights": {self._idle.names: self._idle.read(learnable)}})


def _own(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of the layer that are neither weights nor biases, by name.

    Those of its parts too, unless there are layers among them: a block that keeps a weight itself.
    Matrices are weights under another name.
    """
    if isinstance(module, Containers):
        return {}
    kernels = [n for n, p in module.named_parameters() if n.endswith(".weight") and p.dim() > 1]
    return {
        name: parameter
        for name, parameter in module.named_parameters(recurse=not kernels)
        if not _NOT_OF_QUANTIZER.fullmatch(name.rpartition(".")[2])
        and parameter.numel() > 0
        and not is_matrix(parameter)
    }


def _has_gradient(module: nn.Module) -> bool:
    weights = (p for n, p in module.named_parameters() if n.rpartition(".")[2] not in ("bias",))
    return any(p.grad is not None for p in weights)
