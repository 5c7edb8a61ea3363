"""A rule in words: what it looks at, when it fires and ends, what then."""

import textwrap
from collections.abc import Iterator

from .functions import FUNCTIONS
from .rule import Rule
from .vocabulary import meaning


_WIDTH, _INDENT = 100, 16


def explain(rule: Rule) -> list[str]:
    """Lines that say all there is to say of a rule."""
    lines = [f"{rule.name}  {rule.severity}"]
    for label, text in _parts(rule):
        lines += textwrap.wrap(
            " ".join(text.split()),
            _WIDTH,
            initial_indent=f"  {label:<{_INDENT - 2}}",
            subsequent_indent=" " * _INDENT,
        )
    return lines


def _parts(rule: Rule) -> Iterator[tuple[str, str]]:
    if rule.summary:
        yield "says", rule.summary
    yield "fires when", rule.expr
    yield "", _when(rule)
    yield "ends when", _end(rule)
    for column in dict.fromkeys(c for condition in rule.conditions for c in condition.columns):
        if words := meaning(column):
            yield "looks at", f"{column}: {words}"
    used = {x.function for condition in rule.conditions for x in condition.lookbacks}
    for name in FUNCTIONS:
        if name in used:
            yield "asks", FUNCTIONS[name][1]
    for label, text in (("likely", rule.likely), ("try", rule.advice), ("source", rule.source)):
        if text:
            yield label, text
    places: dict[str, list[str]] = {}
    for place, glob in rule.causes:
        places.setdefault(place, []).append(glob)
    for place, globs in places.items():
        yield "follows from", f"{', '.join(globs)} ({place})"
    yield "then", ", ".join(rule.actions) or "nothing; it is stored"


def _when(rule: Rule) -> str:
    parts = [f"at {rule.for_steps} observed steps in a row" if rule.for_steps > 1 else "at once"]
    parts.append("in any phase" if rule.phase == "any" else f"in phase {rule.phase}")
    if rule.after_step:
        parts.append(f"from step {rule.after_step} on")
    if rule.layers != ("*",):
        parts.append(f"on layers {', '.join(rule.layers)}")
    return ", ".join(parts)


def _end(rule: Rule) -> str:
    condition = rule.clear or "it does not hold any more"
    return (
        f"{condition}, at {rule.keep_firing_for + 1} observed steps"
        if rule.keep_firing_for
        else condition
    )
