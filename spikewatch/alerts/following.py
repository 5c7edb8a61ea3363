"""What rules say that they follow from: that it is there, and that it is no circle."""

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from .mistakes import Mistakes, shown, suggest
from .rule import Rule


# Two rules that each name the other there would each be the cause of the other. Elsewhere time or
# depth says which was first.
_OPPOSITE = {"here": "here", "before": "behind", "behind": "before"}


def check_causes(table: Mapping[str, Any], known: Collection[str], mistakes: Mistakes) -> None:
    """Check that what a [[rule]] or [[change]] follows from is there; its form is `Rule`'s matter.

    Args:
        table: As it stands in the file.
        known: Names of all rules that there are.
        mistakes: Takes what is wrong.
    """
    follows = table.get("follows")
    if not isinstance(follows, Mapping):
        return
    for place, globs in follows.items():
        for glob in globs if isinstance(globs, list) else ():
            if isinstance(glob, str) and not any(fnmatchcase(name, glob) for name in known):
                mistakes.add(
                    f"rule {shown(table.get('name'))}: `follows.{place}`: no rule is named "
                    f"{shown(glob)}. {suggest(glob, known)}"
                )


def check_circles(rules: Iterable[Rule], known: Mapping[str, Rule], mistakes: Mistakes) -> None:
    """Check that no rule follows from itself, by way of others or not.

    Args:
        rules: To be checked.
        known: All rules that there are.
        mistakes: Takes what is wrong.
    """
    told: set[frozenset[str]] = set()
    for rule in rules:
        for place in _OPPOSITE:
            circle = _circle(rule.name, place, known)
            if circle and frozenset(circle) not in told:
                told.add(frozenset(circle))
                mistakes.add(
                    f"rule {rule.name!r}: `follows.{place}` is a circle: {' → '.join(circle)}. "
                    "Of two rules only one can follow from the other: take one of them out."
                )


def _circle(name: str, place: str, rules: Mapping[str, Rule]) -> list[str]:
    """Names from a rule to what it follows from, and so on back to itself; empty without."""
    if place != "here":  # the way back leads to the other side
        back = _OPPOSITE[place]
        near = _causes(name, place, rules)
        return next(([name, n, name] for n in near if name in _causes(n, back, rules)), [])
    paths, seen = [[name]], set()
    while paths:
        path = paths.pop()
        for cause in _causes(path[-1], place, rules):
            if cause == name:
                return [*path, name]
            if cause not in seen:
                seen.add(cause)
                paths.append([*path, cause])
    return []


def _causes(name: str, place: str, rules: Mapping[str, Rule]) -> list[str]:
    """What a rule may follow from at a place; itself only where it names itself."""
    globs = [glob for where, glob in rules[name].causes if where == place]
    return [
        other
        for other in rules
        if other in globs or (other != name and any(fnmatchcase(other, glob) for glob in globs))
    ]
