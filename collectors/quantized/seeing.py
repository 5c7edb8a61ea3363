"""Catching the weight that a layer really multiplies with.

It is often a temporary that only `F.linear` or `F.conv*` ever sees, so on an observed step a
function mode is entered for the time of the layer's forward.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


# Functions whose second argument, or keyword `weight`, is the weight.
_WEIGHT_FUNCTIONS = {
    torch.nn.functional.linear,
    torch.nn.functional.conv1d,
    torch.nn.functional.conv2d,
    torch.nn.functional.conv3d,
    torch.nn.functional.conv_transpose1d,
    torch.nn.functional.conv_transpose2d,
    torch.nn.functional.conv_transpose3d,
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.matmul,
    torch.mm,
    torch.Tensor.matmul,
    torch.Tensor.mm,
    torch.Tensor.__matmul__,
}


class SeeWeight(TorchFunctionMode):
    """Hands over the first weight that a weight function is given."""

    def __init__(self, shape: torch.Size, seen: Callable[[Tensor], None] | None) -> None:
        super().__init__()
        self._shape = shape
        self._seen = seen

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        # First, since a compiled function is bound to all that it has looked at of ours.
        if torch.compiler.is_compiling():
            return func(*args, **kwargs)
        seen = self._seen
        if seen is not None and func in _WEIGHT_FUNCTIONS:
            weight = kwargs.get("weight", args[1] if len(args) > 1 else None)
            if isinstance(weight, Tensor):
                if weight.shape == self._shape:
                    seen(weight)
                elif weight.dim() == 2 and weight.shape == self._shape[::-1]:
                    seen(weight.t())
        return func(*args, **kwargs)

    def leave(self) -> None:
        """Exit, wherever the mode is among those entered.

        After a `KeyboardInterrupt` no hook is called, so that it may be found long afterwards.
        """
        above: list[Any] = []
        while (n := torch._C._len_torch_function_stack()) and torch._C._get_function_stack_at(
            n - 1
        ) is not self:
            above.append(torch._C._pop_torch_function_stack())
        if n:
            torch._C._pop_torch_function_stack()
        for mode in reversed(above):
            torch._C._push_on_torch_function_stack(mode)
