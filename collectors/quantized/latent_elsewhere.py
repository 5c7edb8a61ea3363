"""Latent weights that only an optimizer has: TTQ by swapping data.

There the model's own parameters are ternary, and a second optimizer moves full-precision copies of
them, after which the parameters are written anew.
"""

import weakref
from collections.abc import Iterable

from torch import Tensor, nn
from torch.optim import Optimizer

from .operands import agreement


_LEAST_AGREEMENT = 0.9  # of the signs of nonzero weights; a stranger has 0.5


class Elsewhere:
    """The parameters of optimizers that are not the model's."""

    def __init__(self, model: nn.Module, optimizers: Iterable[Optimizer]) -> None:
        own = {id(p) for p in nn.Module.parameters(model)}
        self._found = [
            weakref.ref(p)
            for optimizer in optimizers
            for group in optimizer.param_groups
            for p in group["params"]
            if isinstance(p, Tensor) and id(p) not in own and p.dim() >= 2
        ]

    def has(self, shape: tuple[int, ...]) -> bool:
        """Whether one of them has this shape."""
        return any(tuple(p.shape) == shape for p in self._alive())

    def latent_of(self, weight: Tensor) -> Tensor | None:
        """The one that ternary weights were made of: of their shape, and their signs."""
        fitting = [p.detach() for p in self._alive() if p.shape == weight.shape]
        best = max(fitting, key=lambda p: agreement(weight, p), default=None)
        if best is None or agreement(weight, best) < _LEAST_AGREEMENT:
            return None
        return best

    def _alive(self) -> list[Tensor]:
        return [p for ref in self._found if (p := ref()) is not None]
