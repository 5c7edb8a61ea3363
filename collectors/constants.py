"""Threshold and decay that a neuron's code names, where nothing holds them.

`mem * decay * (1. - spike)` and `input.gt(thresh)` name globals. A name is taken where it says what
it is, and where the code names one such number only. That the threshold is the right one shows in
the spikes, before a potential is measured by it.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

from torch import nn

from .reachable import autograd_function, own_code, own_forward


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
    return _clear_among(named)


@lru_cache(maxsize=512)
def constants_of_class(cls: type[nn.Module]) -> Constants:
    """The numbers named in the forward of a class, and in the spike functions that this names."""
    named: dict[str, float] = {}
    for function in own_code(cls):
        named |= _numbers(function.__code__, function.__globals__)
        for name in function.__code__.co_names:
            spike = autograd_function(function.__globals__.get(name))
            forward = None if spike is None else own_forward(spike)
            if isinstance(forward, FunctionType):
                named |= _numbers(forward.__code__, forward.__globals__)
    return _clear_among(named)


def _clear_among(named: Mapping[str, float]) -> Constants:
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
