"""Signs of life: rows where a layer, or everything, has gone quiet.

A layer is missing at an observed step of its phase if others have rows there and it has none. While
nothing at all comes in, a row on the line `(training)` is made for every full minute of silence.
Both follow from the rows alone, whichever way they come in, so that replay makes the same.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

import polars as pl

from ..metrics.wide import COLUMNS as OBSERVED
from .endings import Ending
from .moments import MOMENT
from .vocabulary import COLUMNS


TRAINING = "(training)"
SILENCE = timedelta(minutes=1)
# A layer is gone when it has missed so many observed steps, and so many times its longest gap.
GONE_STEPS, GONE_GAPS = 20, 5
GONE = "gone"  # the column that says so, once

_WANTED = COLUMNS | {GONE: pl.Boolean(), MOMENT: pl.Int64()}
_UNKNOWN = [
    pl.lit(None, dtype).alias(name)
    for name, dtype in _WANTED.items()
    if name not in (*OBSERVED, MOMENT, "missed_steps")
]
_NOTHING = pl.DataFrame(schema=_WANTED)
_SILENT = -1  # the moments of silence count down from here
Row = dict[str, Any]


@dataclass(slots=True)
class _Presence:
    """When a layer was last seen in one phase."""

    missed: int = 0
    longest: int = 0

    @property
    def is_gone(self) -> bool:
        return self.missed > GONE_STEPS and self.missed > GONE_GAPS * self.longest


class Liveness:
    """What was seen when, in one rank of one run. Its memory is a line for each layer."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, _Presence]] = {}  # by phase, layer
        self._latest_at: datetime | None = None
        self._step = 0  # at that time
        self._longest_gap = timedelta(0)
        self._n_silent = 0  # rows made in the silence that goes on

    def extend(self, wide: pl.DataFrame, watched: Container[str]) -> pl.DataFrame:
        """Put rows of what is missing between rows, which are in moments.

        Args:
            wide: Rows.
            watched: Layers that are expected at each observed step. Others come at a slower pace.
        """
        wide = wide.with_columns(
            pl.when(pl.col("value").is_null()).then(pl.lit(0, pl.Int64)).alias("missed_steps"),
            *_UNKNOWN,
            pl.int_range(pl.len()).cast(pl.Float64).alias("_order"),
        )
        made = self._made(wide, watched)
        if not made:
            return wide.drop("_order")
        rows = pl.DataFrame(made, schema=_WANTED | {"_order": pl.Float64()})
        return pl.concat([wide, rows.select(wide.columns)]).sort("_order").drop("_order")

    def end(self, ending: Ending) -> None:
        """A layer is not expected any more."""
        for seen in self._seen.values():
            for layer in [x for x in seen if ending.is_of(x)]:
                del seen[layer]

    def _made(self, wide: pl.DataFrame, watched: Container[str]) -> list[Row]:
        """Rows to be put between those of `wide`, with their places in `_order`."""
        # Plain lists: a moment has a handful of rows, and a frame of its own would cost more.
        rows = list(wide.select("step", "phase", "at", MOMENT, "layer", "missed_steps").iter_rows())
        made: list[Row] = []
        first = 0
        for moment_id, group in groupby(rows, key=itemgetter(3)):
            part = list(group)
            last = first + len(part)
            step, phase, at, *_ = part[0]
            if at is not None:
                moment = {"step": step, "phase": phase, "at": at, MOMENT: moment_id}
                made += [row | {"_order": first - 0.5} for row in self._life_sign(moment)]
                present = {r[4] for r in part if r[5] is not None and r[4] in watched}
                if present:
                    missing = self._missing(moment, present)
                    made += [row | {"_order": last - 0.5} for row in missing]
                times = [r[2] for r in part if r[2] is not None]
                self._latest_at = max(self._latest_at or at, *times)
            first = last
        return made

    def silence(self, now: datetime) -> pl.DataFrame:
        """Rows of a silence that goes on, up to now."""
        rows = list(self._silent_rows(until=now))
        return pl.DataFrame(rows, schema=_WANTED) if rows else _NOTHING

    def _life_sign(self, moment: Row) -> Iterator[Row]:
        """The silence that ends with something that was observed."""
        at = moment["at"]
        yield from self._silent_rows(until=at)
        if self._n_silent:
            yield moment | {"phase": "train", "layer": TRAINING, "silent_s": 0.0, MOMENT: _SILENT}
        if self._latest_at is not None:
            self._longest_gap = max(self._longest_gap, at - self._latest_at)
        self._step, self._n_silent = moment["step"], 0

    def _silent_rows(self, *, until: datetime) -> Iterator[Row]:
        if self._latest_at is None:
            return
        while self._latest_at + (self._n_silent + 1) * SILENCE <= until:
            self._n_silent += 1
            silent = self._n_silent * SILENCE
            yield {
                "step": self._step,
                "phase": "train",
                "at": self._latest_at + silent,
                MOMENT: _SILENT - self._n_silent,
                "layer": TRAINING,
                "silent_s": silent.total_seconds(),
                "longest_gap_s": self._longest_gap.total_seconds(),
            }

    def _missing(self, moment: Row, present: set[str]) -> Iterator[Row]:
        seen = self._seen.setdefault(moment["phase"], {})
        for layer, presence in seen.items():
            if layer in present:
                if presence.missed:
                    presence.longest = max(presence.longest, presence.missed)
                    presence.missed = 0
                continue
            was_gone = presence.is_gone
            presence.missed += 1
            yield moment | {
                "layer": layer,
                "missed_steps": presence.missed,
                "longest_gap_steps": presence.longest,
                GONE: presence.is_gone and not was_gone,
            }
        for layer in sorted(present - seen.keys()):
            seen[layer] = _Presence()
