"""Catching the functions of torch that a module calls, while it runs."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


FUSED = (nn.MultiheadAttention, nn.TransformerEncoder, nn.TransformerEncoderLayer)


def would_be_fused(module: nn.Module) -> bool:
    """Whether torch may run parts of a module by fused code now, which gives other numbers.

    Its attention does so in evaluations, but under no mode.
    """
    trains = module.training and torch.is_grad_enabled()
    return not trains and any(isinstance(m, FUSED) for m in nn.Module.modules(module))


class SeeCalls(TorchFunctionMode):
    """Hands over the arguments of each call of some functions, before it runs."""

    def __init__(
        self,
        offer: Callable[..., bool] | None,
        wanted: Callable[[Any], bool],
        claims: threading.local,
    ) -> None:
        """Take whom to hand them over to.

        Args:
            offer: Called with function, args and kwargs; returns whether the call is its own. None
                where the mode is entered only for a compiled function's sake.
            wanted: Whether calls of a function are handed over.
            claims: Shared by the modes that share calls out among them.
        """
        super().__init__()
        self._offer = offer
        self._wanted = wanted
        self._claims = claims

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        # First, since a compiled function is bound to all that it has looked at of ours.
        if torch.compiler.is_compiling():
            return func(*args, **kwargs)
        if self._offer is None or not self._wanted(func):
            return func(*args, **kwargs)
        # Modules within others have modes of their own, and the innermost is asked first.
        if getattr(self._claims, "taken", False) or not self._offer(func, args, kwargs):
            return func(*args, **kwargs)
        self._claims.taken = True
        try:
            return func(*args, **kwargs)
        finally:
            self._claims.taken = False

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
