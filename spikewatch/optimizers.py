"""Which optimizers are a model's. Whether there is one at all is asked of the garbage collector.

Rarely, for that takes some 10 ms: an optimizer is often made after `attach()`, and does not tell.
"""

import gc
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from .unheard import unheard


class Optimizers:
    """Those that hold a parameter of the model.

    Attributes:
        is_one_known: Whether there is one, as far as is known.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)
        # Whether an optimizer is one of them, and how many groups it had when it was asked.
        self._owners: weakref.WeakKeyDictionary[Optimizer, tuple[bool, int]]
        self._owners = weakref.WeakKeyDictionary()
        self._look_again_at = 1
        self.is_one_known = False

    def include(self, optimizer: Optimizer) -> bool:
        """Whether an optimizer is one of them."""
        groups = optimizer.param_groups
        known, n_groups = self._owners.get(optimizer, (False, -1))
        if not known and n_groups != len(groups):
            with unheard():
                known = self._shares_with(p for group in groups for p in group["params"])
            if known or not self.are_swapped():
                self._owners[optimizer] = known, len(groups)
        return known

    def hold(self, parameter: Tensor, *, but: list[Optimizer]) -> bool:
        """Whether one of them, other than some, holds a parameter."""
        ours = [o for o, (known, _) in self._owners.items() if known and o not in but]
        return any(
            parameter is p for o in ours for group in o.param_groups for p in group["params"]
        )

    def names_of(self, optimizer: Optimizer) -> list[str]:
        """Names of the model's parameters that one of them holds."""
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        model = self._model()
        named = [] if model is None else nn.Module.named_parameters(model)
        return [name for name, p in named if id(p) in held]

    def follow(self) -> None:
        """The model has changed: it may have parameters now that strange optimizers hold."""
        for optimizer, (known, _) in list(self._owners.items()):
            if not known:
                del self._owners[optimizer]

    def look_again(self) -> None:
        """Training begins: an optimizer is new, maybe."""
        self._look_again_at = 1

    def are_there(self, n_forwards: int) -> bool:
        """Whether there is one, after so many forward passes."""
        if not self.is_one_known and n_forwards >= self._look_again_at:
            if self.are_swapped():
                return True  # it cannot be told; such a call is one of many in a step
            self._look_again_at = 2 * n_forwards  # at 1, 2, 4, 8, …
            self.is_one_known = any(self.include(o) for o in gc.get_objects() if _is_one(o))
        return self.is_one_known

    def are_swapped(self) -> bool:
        """Whether other tensors have taken the parameters' places: `torch.func.functional_call`."""
        return not all(isinstance(p, nn.Parameter) for p in self._parameters())

    def _shares_with(self, parameters: Iterable[Any]) -> bool:
        ours = {known for p in self._parameters() for known in (id(p), _memory(p)) if known}
        return any(id(p) in ours or _memory(p) in ours for p in parameters)

    def _parameters(self) -> list[Any]:
        model = self._model()
        return [] if model is None else list(nn.Module.parameters(model))


def _memory(parameter: Any) -> tuple[Any, int] | None:
    """The memory of a parameter, which another one may share: `p.data = q.data` (tandem learning).

    None where it has none of its own, as on the meta device, or as a tensor of another kind.
    """
    if type(parameter) is not nn.Parameter or parameter.layout != torch.strided:
        return None
    address = parameter.untyped_storage().data_ptr() if not parameter.is_meta else 0
    return (parameter.device, address) if address else None


def _is_one(thing: object) -> bool:
    # type(), not isinstance(): some objects in the heap answer to __class__ by running code.
    return issubclass(type(thing), Optimizer)
