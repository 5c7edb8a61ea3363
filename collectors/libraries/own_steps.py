"""Which parts of a time step are SpikingJelly's own, in a class that a user derived from one of it.

A neuron charges, fires and resets, and each of these, as the forward that calls them, may be the
user's. What the library's attributes say is so where the library's code acts by them. Read from
the names in the bytecode of the users' methods, and of methods of theirs that these name.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType
from typing import Any

from ..reachable import code_names, package


_LIBRARY = "spikingjelly"
_FORWARDS = (
    "forward", "single_step_forward", "multi_step_forward",
    "single_step_functional_forward", "multi_step_functional_forward",
)  # fmt: skip
_CHARGE, _FIRE, _RESET = "neuronal_charge", "neuronal_fire", "neuronal_reset"
_STEPS = {*_FORWARDS, _CHARGE, _FIRE, _RESET}
_ANOTHER_THRESHOLD = re.compile("^(?!v_threshold$).*(thr|v_?th|theta)", re.IGNORECASE)


@dataclass(frozen=True)
class OwnSteps:
    """What of a class is the library's.

    Attributes:
        kinds: Names of the library's classes on the MRO.
        charges: Whether its code charges the neuron.
        fires: Whether its code compares with the threshold, or a user's does so by its name.
        resets: The same of the reset.
        is_users: Whether anything of a time step is a user's code.
        charge_names: Names in the user's code that charges.
    """

    kinds: frozenset[str]
    charges: bool
    fires: bool
    resets: bool
    is_users: bool
    charge_names: frozenset[str]


@lru_cache(maxsize=512)
def own_steps(cls: type) -> OwnSteps:
    """Look at the methods of a class."""
    forwards = [names for step in _FORWARDS for names in _users_names(cls, step)]
    charge, fire, reset = (
        [*forwards, *_users_names(cls, step)] for step in (_CHARGE, _FIRE, _RESET)
    )
    return OwnSteps(
        kinds=frozenset(c.__name__ for c in cls.__mro__ if package(c) == _LIBRARY),
        charges=_go_on_to(charge, _CHARGE),
        fires=_go_on_to(fire, _FIRE, "v_threshold")
        and not any(map(_ANOTHER_THRESHOLD.search, set[str]().union(*fire))),
        resets=_go_on_to(reset, _RESET, "v_reset"),
        is_users=bool(charge + fire + reset),
        charge_names=frozenset().union(*charge),
    )


def _go_on_to(users: list[set[str]], *ends: str) -> bool:
    """Whether all of a user's methods name what goes on with the time step, or its attribute."""
    return all(names & {*_FORWARDS, *ends} for names in users)


def _users_names(cls: type, step: str) -> list[set[str]]:
    """Names in each user's method for one part of a time step, as far as `super()` is called."""
    found: list[set[str]] = []
    for method in _users_methods(cls, step):
        found.append(_names(cls, method))
        if step not in found[-1]:
            break
    return found


def _users_methods(cls: type, name: str) -> Iterator[Any]:
    """What users' classes hold under a name, nearest first, until the library's own."""
    for owner in cls.__mro__:
        if package(owner) in (_LIBRARY, "torch"):
            if name in vars(owner):
                return
        elif name in vars(owner):
            yield vars(owner)[name]


def _names(cls: type, method: Any) -> set[str]:
    """Names in a method's code, and in that of users' helpers which it names."""
    names, todo = set[str](), [method]
    while todo:
        thing = todo.pop()
        thing = inspect.unwrap(getattr(thing, "fget", None) or getattr(thing, "__func__", thing))
        code = getattr(thing, "__code__", None)
        new = code_names(code) - names if isinstance(code, CodeType) else set[str]()
        names |= new
        todo += [m for n in new - _STEPS for m in _users_methods(cls, n)]
    return names
