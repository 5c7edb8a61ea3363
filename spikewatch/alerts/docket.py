"""The docket: what the rules have still to judge, and from when on they may.

Most of what judging costs is the same for one row and for a thousand. So the rules rest the longer,
the more they took the last time, and judge all that has come in meanwhile at once.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping

import polars as pl


JUDGES_SHARE = 0.01  # of one core, as far as the bound allows
LONGEST_REST_S = 1.7


class Docket:
    """Frames by table, in the order in which they came in."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._frames: defaultdict[str, list[pl.DataFrame]] = defaultdict(list)
        self._due_s = clock()

    @property
    def is_due(self) -> bool:
        """Whether the rules have rested long enough."""
        return self._clock() >= self._due_s

    def add(self, frames: Mapping[str, pl.DataFrame]) -> None:
        """Put in what is written to the journal."""
        for name, frame in frames.items():
            self._frames[name].append(frame)

    def take(self) -> dict[str, pl.DataFrame]:
        """All that was put in since the last call."""
        frames, self._frames = self._frames, defaultdict(list)
        return {name: pl.concat(parts) for name, parts in frames.items()}

    def rest(self, spent_s: float) -> None:
        """The rules have judged, which took so much of a core."""
        self._due_s = self._clock() + min(spent_s / JUDGES_SHARE, LONGEST_REST_S)
