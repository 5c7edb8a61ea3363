"""All illnesses, and which seeds they are planted with."""

import difflib
import fnmatch
from collections.abc import Sequence

from spikewatch.alerts.loading import load_rules

from .amplitudes import AMPLITUDES
from .beds import BEDS
from .dynamics import DYNAMICS
from .estimators import ESTIMATORS
from .gradients import GRADIENTS
from .illness import Illness
from .numbers import NUMBERS
from .spiking import SPIKING
from .teachers import TEACHERS
from .weights import WEIGHTS


# Thresholds are tuned on the one, figures come from the other.
TUNING_SEEDS = tuple(range(100, 110))
BENCH_SEEDS = tuple(range(300, 310))

ILLNESSES: tuple[Illness, ...] = (
    *SPIKING,
    *DYNAMICS,
    *GRADIENTS,
    *AMPLITUDES,
    *WEIGHTS,
    *ESTIMATORS,
    *NUMBERS,
    *TEACHERS,
)
# A handful that is over in seconds.
SHORT = (
    "threshold-thirtyfold",
    "bias-of-six",
    "surrogate-far-too-narrow",
    "detached",
    "delta-five-times",
    "variance-of-one-amplitude",
)


def choose(only: Sequence[str]) -> list[Illness]:
    """The illnesses that a name or pattern asks for: of an illness, of its rule, or of its bed.

    Raises:
        ValueError: A pattern matches nothing.
    """
    chosen: set[str] = set()
    for pattern in only:
        some = {
            i.name
            for i in ILLNESSES
            if any(fnmatch.fnmatchcase(x, pattern) for x in (i.name, i.rule, i.bed))
        }
        if not some:
            raise ValueError(_no_match(pattern))
        chosen |= some
    return [i for i in ILLNESSES if not only or i.name in chosen]


def not_planted() -> list[str]:
    """Shipped rules for which there is no illness."""
    planted = {i.rule for i in ILLNESSES}
    return [rule.name for rule in load_rules() if rule.name not in planted]


def _no_match(pattern: str) -> str:
    names = sorted({x for i in ILLNESSES for x in (i.name, i.rule)} | set(BEDS))
    close = difflib.get_close_matches(pattern, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{pattern!r} names no illness, rule or training; {hint}`--list` tells what there is"
