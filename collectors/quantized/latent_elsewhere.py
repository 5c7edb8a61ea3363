"""Latent weights that only an optimizer has: TTQ by swapping data.

There the model's own parameters are ternary, and a second optimizer moves full-precision copies of
them, after which the parameters are written anew.
"""

import weakref
from collections.abc import Iterable

from torch import Tensor, nn
from torch.optim import Optimizer


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
        return any(tuple(p.shape) == shape for p in self.parameters())

    def parameters(self) -> list[Tensor]:
        """Those of them that live."""
        return [p for ref in self._found if (p := ref()) is not None]
