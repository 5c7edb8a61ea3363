"""Threshold and decay of a neuron that is a function: numbers that its code names.

`mem * decay * (1. - spike)` and `input.gt(thresh)` name globals. A name is taken where it says what
it is, and where the code names one such number only. That the threshold is the right one shows in
the spikes, before a potential is measured by it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

from torch import nn

from ..libraries import user
from ..library import Dynamics, Library


_THRESHOLD = re.compile(r"(.*_)?(v_?th|thr|thresh|threshold)\d*", re.IGNORECASE)
_DECAY = re.compile(r"(.*_)?((mem_?|v_?)?decay|beta)\d*", re.IGNORECASE)
_OF_CURRENTS = re.compile(r"(.*_)?(c|i|syn|cur(rent)?)_?decay\d*", re.IGNORECASE)


class Constants(NamedTuple):
    """What the code of a neuron says of it; None where it does not, or not clearly."""

    threshold: float | None
    decay: float | None


def constants_of(function: Any, frame: FrameType | None, codes: Iterable[Any]) -> Constants:
    """The numbers named in a spike function and in the code that calls it.

    Args:
        function: The autograd function's own forward.
        frame: That which called it; its globals are looked at.
        codes: Of the chain of calls.
    """
    named: dict[str, float] = {}
    if isinstance(function, FunctionType):
        named |= _numbers(function.__code__, function.__globals__)
    if frame is not None:
        for code in codes:
            if isinstance(code, CodeType):
                named |= _numbers(code, frame.f_globals)
    decays = {n: x for n, x in named.items() if _DECAY.fullmatch(n) and 0 <= x <= 1}
    return Constants(
        _only(x for n, x in named.items() if _THRESHOLD.fullmatch(n) and x > 0),
        _only(x for n, x in decays.items() if not _OF_CURRENTS.fullmatch(n)),
    )


def _numbers(code: CodeType, names: Mapping[str, Any]) -> dict[str, float]:
    numbers = {}
    for name in code.co_names:
        value = names.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            numbers[name] = float(value)
    return numbers


def _only(numbers: Iterable[float]) -> float | None:
    different = set(numbers)
    return different.pop() if len(different) == 1 else None


def library_with(constants: Constants, *, alone: Callable[[], bool]) -> Library:
    """How a neuron is read whose module may not hold these numbers.

    Args:
        constants: The numbers.
        alone: Whether it is the only one in the module, whose parameters are its own then.
    """
    return replace(user.LIBRARY, dynamics=partial(_dynamics, constants, alone))


def _dynamics(constants: Constants, alone: Callable[[], bool], module: nn.Module) -> Dynamics:
    told = user.LIBRARY.dynamics(module)
    return replace(
        told,
        threshold=constants.threshold if told.threshold is None else told.threshold,
        decay=constants.decay if told.decay is None else told.decay,
        learnable=told.learnable if alone() else {},
    )
