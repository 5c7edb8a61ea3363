"""Layers that are taken out of a model while it is trained, or whose name another one takes.

What was told of such a layer ends there, and what comes under its name later is judged anew.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

import polars as pl


REMOVED = "removed"  # the kind of event


class Ending(NamedTuple):
    """A layer ends: at the beginning of a step, after what was told of that step until then."""

    step: int
    at: datetime
    layer: str

    @property
    def is_after(self) -> pl.Expr:
        """Whether a row came before it."""
        same = (pl.col("step") == self.step) & (pl.col("at") <= self.at)
        return ((pl.col("step") < self.step) | same).fill_null(value=False)

    def is_of(self, layer: str) -> bool:
        """Whether it is that of a layer: of a site of it, or a pair with its kernel, as well."""
        if layer == self.layer or layer.startswith((f"{self.layer}@", f"{self.layer}+")):
            return True
        around, _, own = self.layer.rpartition(".")
        return layer.endswith(f"+{own}") and layer.startswith(around)


class Endings:
    """Those after which no row has come yet."""

    def __init__(self) -> None:
        self._waiting: list[Ending] = []

    def add(self, events: pl.DataFrame) -> None:
        """Take rows of the table `events`, in order."""
        removed = events.filter(pl.col("kind") == REMOVED)
        self._waiting += map(Ending._make, removed.select("step", "at", "layer").iter_rows())

    def divide(self, wide: pl.DataFrame) -> Iterator[pl.DataFrame | Ending]:
        """Rows in order, with the endings that come before some of them."""
        while self._waiting and wide.height:
            is_before = wide.select(self._waiting[0].is_after).to_series()
            if is_before.all():
                break
            if is_before.any():
                yield wide.filter(is_before)
            wide = wide.filter(~is_before)
            yield self._waiting.pop(0)
        if wide.height:
            yield wide

    def rest(self) -> Iterator[Ending]:
        """All others: nothing comes before them that is not there yet."""
        while self._waiting:
            yield self._waiting.pop(0)
