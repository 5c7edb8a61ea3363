"""What the call stack shows: how an optimizer steps just now, or that a forward pass has raised.

Hooks before each step would tell some of it as well, and cost something in all of them; the stack
is asked where something is observed, or in the rare case.
"""

import sys
from collections.abc import Iterator
from itertools import islice
from types import CodeType, FrameType

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim.optimizer import Optimizer


# What torch wraps around the `step` of each optimizer's class; it calls the hooks.
_WRAPPED = getattr(Optimizer, "profile_hook_step", None)
_CONSTANTS = getattr(getattr(_WRAPPED, "__code__", None), "co_consts", ())
_NEAR = 12  # frames in which a scaler is looked for, from ours on
_CALL = nn.Module._call_impl.__code__
_WRAPPERS = [code for code in _CONSTANTS if isinstance(code, CodeType)]


def stepping_optimizers() -> Iterator[Optimizer]:
    """Optimizers whose step runs in this thread, the innermost first.

    Those that take a closure run the model within their step, several times.
    """
    for frame in _frames():
        if frame.f_code in _WRAPPERS:
            optimizer = frame.f_locals.get("self")
            if isinstance(optimizer, Optimizer):
                yield optimizer


def loss_scale() -> Tensor | float | None:
    """What automatic mixed precision has multiplied the loss by; None without it.

    Gradients of weights are divided by it before the optimizer steps; those of activations never
    are. A number, or where a GPU would have to be waited for a 0-d tensor of its own: the
    `GradScaler` that has the optimizer step changes its own in place.
    """
    for frame in islice(_frames(), _NEAR):
        scaler = frame.f_locals.get("self") if frame.f_code.co_name == "step" else None
        if isinstance(scaler, GradScaler):
            scale = getattr(scaler, "_scale", None)
            if scale is None:  # it is switched off
                return None
            return scale.item() if can_be_looked_at(scale) else scale.detach().clone()
    return None


def forward_raised() -> bool:
    """Whether the forward hook that runs now is called since the module's forward pass has raised.

    One with `always_call` is; torch calls it while it handles the exception. A checkpoint stops its
    second pass in this way, once it has what the backward pass needs: that one is over.
    """
    error = sys.exception()
    if error is None or error.__traceback__ is None:
        return False
    if torch._C._current_graph_task_id() != -1:
        return False
    # Else the user handles it, and calls a module meanwhile.
    call = next((f for f in islice(_frames(), _NEAR) if f.f_code is _CALL), None)
    return call is error.__traceback__.tb_frame


def can_be_looked_at(x: Tensor) -> bool:
    """Whether nobody has to wait for it."""
    return x.is_cpu


def _frames() -> Iterator[FrameType]:
    frame = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
