"""Which optimizers step just now, as the call stack shows it.

Those that take a closure run the model within their step, several times. A hook before each step
would tell as well, and cost something in all of them; the stack is asked in the rare case only.
"""

import sys
from collections.abc import Iterator
from types import CodeType

from torch.optim.optimizer import Optimizer


# What torch wraps around the `step` of each optimizer's class; it calls the hooks.
_WRAPPED = getattr(Optimizer, "profile_hook_step", None)
_CONSTANTS = getattr(getattr(_WRAPPED, "__code__", None), "co_consts", ())
_CODES = [code for code in _CONSTANTS if isinstance(code, CodeType)]


def stepping_optimizers() -> Iterator[Optimizer]:
    """Optimizers whose step runs in this thread, the innermost first."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code in _CODES:
            optimizer = frame.f_locals.get("self")
            if isinstance(optimizer, Optimizer):
                yield optimizer
        frame = frame.f_back
