"""Mistakes in what a user wrote, all of them at once, and how they read."""

import difflib
from collections.abc import Callable, Iterable
from typing import TypeVar

from ..errors import RuleError


_T = TypeVar("_T")

_AND = "\n    and: "
_MOST_SHOWN = 100  # characters of what was found
_MOST_NAMED = 20  # words that are allowed


class Mistakes:
    """Collects mistakes, in the order in which they are found."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def tried(self, make: Callable[[], _T]) -> _T | None:
        """What `make` returns; None where it finds a mistake."""
        try:
            return make()
        except RuleError as error:
            self._found.append(str(error))
            return None

    def add(self, message: str) -> None:
        """Take a mistake."""
        self._found.append(message)

    def tell(self) -> None:
        """Raise them all.

        Raises:
            RuleError: There are some.
        """
        if len(self._found) == 1:
            raise RuleError(self._found[0])
        if self._found:
            lines = "".join(f"\n  - {mistake}" for mistake in self._found)
            n = len(self._found) + lines.count(_AND)
            raise RuleError(f"{n} mistakes:{lines}")

    def tell_of(self, who: str) -> None:
        """Raise them as one mistake, all of the same rule or channel.

        Raises:
            RuleError: There are some.
        """
        if self._found:
            raise RuleError(f"{who}: " + _AND.join(dict.fromkeys(self._found)))


def shown(value: object) -> str:
    """What was found, as it would stand in Python, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def suggest(word: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'?`, where one is close, and the known words, unless these are many."""
    names = list(known)
    close = difflib.get_close_matches(word.lower(), names, n=1)
    if close and len(names) > _MOST_NAMED:
        return f"Did you mean {close[0]!r}?"
    hint = f"Did you mean {close[0]!r}? " if close else ""
    n_more = len(names) - _MOST_NAMED
    more = f" and {n_more} more" if n_more > 0 else ""
    return f"{hint}Allowed: {', '.join(names[:_MOST_NAMED])}{more}."
