"""What there is to measure, and what `--only` picks of it."""

import difflib
import fnmatch
from collections.abc import Sequence

from ..models import TRAININGS, Training
from .rivals import RIVALS
from .watchers import WATCHERS, Watcher


ALL_WATCHERS = (*WATCHERS, *RIVALS)


def training_named(name: str) -> Training:
    """The training of that name."""
    return next(t for t in TRAININGS if t.name == name)


def watcher_named(name: str) -> Watcher:
    """The watcher of that name."""
    return next(w for w in ALL_WATCHERS if w.name == name)


def choose(only: Sequence[str]) -> list[tuple[Training, Watcher]]:
    """Pairs to measure: those whose training and whose watcher are asked for, and fit.

    Args:
        only: Names or patterns such as `mlp-*`; none at all means everything. Where no training is
            among them, all trainings are meant, and the same for watchers.

    Raises:
        ValueError: A pattern matches nothing; or no watcher asked for applies to a training.
    """
    trainings, watchers = set(), set()
    for pattern in only:
        some = set(fnmatch.filter([t.name for t in TRAININGS], pattern))
        others = set(fnmatch.filter([w.name for w in ALL_WATCHERS], pattern))
        if not some | others:
            raise ValueError(_no_match(pattern))
        trainings |= some
        watchers |= others
    chosen = [
        (t, w)
        for t in TRAININGS
        for w in ALL_WATCHERS
        if (not trainings or t.name in trainings)
        and (not watchers or w.name in watchers)
        and w.applies(t)
    ]
    if not chosen:
        raise ValueError(
            f"none of {', '.join(sorted(watchers))} applies to {', '.join(sorted(trainings))}; "
            "`--list` tells what there is"
        )
    return chosen


def _no_match(pattern: str) -> str:
    names = [x.name for x in (*TRAININGS, *ALL_WATCHERS)]
    close = difflib.get_close_matches(pattern, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{pattern!r} names no training and no watcher; {hint}there are {', '.join(names)}"
