"""Functions that hand on what they are given and change the gradient alone.

Gradient reversal (Ganin & Lempitsky 2015), scaling or clipping: what they return may be spikes, but
it is another layer that made them.
"""

from typing import Any

from torch import Tensor


def hands_on(context: Any, given: Tensor, returned: Tensor) -> bool:
    """Whether a function returned what it was given, and keeps nothing of it.

    A surrogate keeps the potential, or what it made of it: its gradient depends on that.

    Args:
        context: Of the function's call, or its node.
        given: What it was called with.
        returned: What it made.

    Returns:
        False where all are 0, which may be silence.
    """
    if given.shape != returned.shape or _keeps_tensors(context):
        return False
    return bool(returned.any()) and bool((given == returned).all())


def _keeps_tensors(context: Any) -> bool:
    try:
        saved = context._raw_saved_tensors  # once the call is over
    except (AttributeError, RuntimeError):
        saved = ()
    to_save = getattr(context, "to_save", None) or ()
    held = getattr(context, "__dict__", {}).values()
    return any(isinstance(x, Tensor) for x in (*to_save, *held)) or bool(saved)
