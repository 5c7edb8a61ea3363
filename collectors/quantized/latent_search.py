"""Where the latent weight of a quantized one is, element by element beside it.

Most layers keep it under the name that is watched, and multiply with something made of it. Some
multiply with a parameter itself, into which ternary values are written: then it is another one of
the layer's parameters (`weight` beside `weight_ternary`), or only an optimizer has it. What is kept
may also be no latent weight at all, where the ternary ones are made of something else (rotated
weights, scores that choose among fixed ones), or a frozen layer still has a weight that it does not
use any more: the autograd graph says so, or its signs are others, or it has levels itself.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .kernels import Kernel
from .latent_elsewhere import Elsewhere
from .levels import Levels, blocks_of, judge
from .operands import agreement, comes_from, like, shares_memory


# Share of nonzero weights that have the sign of the latent one: about 1, less where the mean of the
# latent ones is far from 0, and 0.5 of a stranger. Whoever comes from elsewhere has to show more.
_LEAST_AGREEMENT = 0.75
_LEAST_ELSEWHERE = 0.9
_MIN_SIGNS = 32


class Beside(NamedTuple):
    """A latent weight.

    Attributes:
        latent: Of the shape of the quantized one; None where there is none.
        again: Finds it again when the step ends, in what the layer keeps by then.
        is_trained: Whether the multiplied weight is itself what an optimizer moves.
    """

    latent: Tensor | None
    again: Callable[[Tensor], Tensor | None]
    is_trained: bool = False


class LatentSearch:
    """Finds the latent weight of one kernel."""

    def __init__(self, kernel: Kernel, elsewhere: Elsewhere | None) -> None:
        self._kernel = kernel
        self._elsewhere = elsewhere
        self._is_strange = False

    def beside(
        self,
        module: nn.Module,
        weight: Tensor,
        levels: Levels,
        *,
        judged: bool,
        stacked: bool,
    ) -> Beside:
        """Look for the latent weight.

        Args:
            module: In whose forward pass the weight was multiplied.
            weight: The multiplied weight, outputs first, with its graph if it has one.
            levels: Its levels.
            judged: Whether they were found just now; the signs are compared then.
            stacked: Whether it is a stack of matrices.
        """
        source = self._kernel.latent(module)
        if source is None:
            return Beside(None, _nothing)
        if shares_memory(weight, source):
            return self._of_written(module, weight.detach(), source)
        kept = self._kernel.outputs_first(module, source.detach())
        found = like(weight.detach(), kept, stacked=stacked)
        if found is None:
            return Beside(None, _nothing)
        transposed, latent = found
        if judged:  # a GPU may have to be waited for
            told = levels.form in ("ternary", "binary") and not levels.shifted
            self._is_strange = comes_from(weight, source) is False or (
                told and _is_stranger(latent, weight.detach(), stacked=stacked)
            )
        if self._is_strange:
            return Beside(None, _nothing)
        return Beside(latent, partial(_laid_out, transposed=transposed, shape=latent.shape))

    def _of_written(self, module: nn.Module, weight: Tensor, source: Tensor) -> Beside:
        """The latent weight where the kept one is ternary itself."""
        kept = self._kernel.outputs_first(module, weight)  # back, as parameters are
        latent = latent_among(kept, _siblings(self._kernel.owner(module), source))
        if latent is None and self._elsewhere is not None:
            latent = latent_among(kept, self._elsewhere.parameters())
        if latent is None:
            return Beside(None, lambda kept: kept, is_trained=source.requires_grad)
        latent = self._kernel.outputs_first(module, latent)
        return Beside(latent, lambda _: latent)


def latent_among(weight: Tensor, parameters: Iterable[Tensor]) -> Tensor | None:
    """The one that ternary weights were made of: of their shape, and of their signs."""
    fitting = [p.detach() for p in parameters if p.shape == weight.shape]
    best = max(fitting, key=lambda p: agreement(weight, p), default=None)
    if best is None or agreement(weight, best) < _LEAST_ELSEWHERE:
        return None
    return best


def _is_stranger(latent: Tensor, weight: Tensor, *, stacked: bool) -> bool:
    signs = blocks_of(weight, stacked=stacked).sign()
    if int((signs.abs() == 1).sum()) < _MIN_SIGNS:  # all are 0, or NaN
        return False
    if agreement(weight, latent, stacked=stacked) < _LEAST_AGREEMENT:
        return True
    return judge(latent, stacked=stacked).bits is not None


def _siblings(owner: nn.Module, source: Tensor) -> list[Tensor]:
    return [p for p in owner._parameters.values() if p is not None and p is not source]


def _nothing(_: Tensor) -> None:
    return None


def _laid_out(latent: Tensor, *, transposed: bool, shape: torch.Size) -> Tensor:
    if latent.numel() != shape.numel():
        return latent  # a shard, or data that was swapped: for the instruments to refuse
    return latent.mT if transposed else latent.reshape(shape)
