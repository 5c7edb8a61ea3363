"""How a metric is declared: once, with everything that anyone asks about it.

A `Table` holds *counters* (sufficient statistics, taken on the device) and *metrics* (formulas
over the counters, as Polars expressions). Counters of two windows or two ranks merge exactly, by
the rule in `Counter.merge`; a metric is computed again from the merged counters and is never
averaged. The DuckDB schema, the README's table, the app's tooltips and the vocabulary of the rules
are all read from these declarations.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

import polars as pl


Merge = Literal["sum", "min", "max", "last"]
Bad = Literal["high", "low", "outside", "none"]

# (run, rank, phase, step, layer) names a row in every per-layer table; `at` is when it was flushed.
KEYS: dict[str, pl.DataType] = {
    "run": pl.String(),
    "rank": pl.Int32(),
    "phase": pl.String(),
    "step": pl.Int64(),
    "layer": pl.String(),
    "at": pl.Datetime("us"),
}


class Formula(Protocol):
    """A function that gives a metric's expression over the counters of its table."""

    __name__: str

    def __call__(self) -> pl.Expr:
        """The formula."""
        ...


@dataclass(frozen=True)
class Counter:
    """A sufficient statistic of one layer in one observed step."""

    name: str
    dtype: pl.DataType
    merge: Merge
    meaning: str


@dataclass(frozen=True)
class Metric:
    """A figure computed from counters. `meaning` is the docstring of the declaring function."""

    name: str
    unit: str
    bad: Bad
    source: str
    meaning: str
    expr: pl.Expr


@dataclass
class Table:
    """One aspect of a layer: a DuckDB table, a row per (run, rank, phase, step, layer)."""

    name: str
    about: str
    counters: list[Counter]
    metrics: list[Metric] = field(default_factory=list)
    _columns: dict[frozenset[str], list[pl.Expr]] = field(default_factory=dict, repr=False)

    def metric(
        self, *, unit: str, bad: Bad = "none", source: str = ""
    ) -> Callable[[Formula], Formula]:
        """Declare the decorated function as a metric of this table, under the function's name.

        Args:
            unit: Physical unit; `"fraction"` for 0–1 (then the name ends in `_frac`), else
                `"bit"`, `"1"` (a pure number), `"count"`, …
            bad: The direction that is unhealthy.
            source: Paper, equation or measurement behind the definition.
        """

        def declare(formula: Formula) -> Formula:
            self.metrics.append(
                Metric(
                    name=formula.__name__,
                    unit=unit,
                    bad=bad,
                    source=source,
                    meaning=" ".join((formula.__doc__ or "").split()),
                    expr=formula().alias(formula.__name__),
                )
            )
            return formula

        return declare

    @property
    def counter_schema(self) -> dict[str, pl.DataType]:
        """Names and types of the counters, in order."""
        return {c.name: c.dtype for c in self.counters}

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Names and types of every column of the table, keys first."""
        return KEYS | self.counter_schema | {m.name: pl.Float64() for m in self.metrics}

    def compute(self, counts: pl.DataFrame) -> pl.DataFrame:
        """Add the metrics to a frame of counters.

        Args:
            counts: Rows with the keys and (some of) the counters; a missing counter is NULL.

        Returns:
            A frame with exactly `schema`. A metric without evidence is NULL, never 0 or NaN.
        """
        # In two steps, since Polars computes what `fill_nan` is called on twice.
        figures = self._complete(counts).with_columns(m.expr for m in self.metrics)
        return figures.with_columns(self._known)

    @cached_property
    def _known(self) -> list[pl.Expr]:
        return [pl.col(m.name).cast(pl.Float64).fill_nan(None) for m in self.metrics]

    def merge(self, rows: pl.DataFrame, by: list[str]) -> pl.DataFrame:
        """Merge rows (windows, ranks) into one per group, and compute the metrics anew.

        Args:
            rows: Rows of this table.
            by: Key columns that stay; the others take their last value.
        """
        how = {"sum": pl.Expr.sum, "min": pl.Expr.min, "max": pl.Expr.max, "last": pl.Expr.last}
        plain = [c for c in self.counters if not c.dtype.is_nested()]
        # Polars sums a group of NULLs to 0; without evidence it has to stay NULL.
        aggs = [
            pl.when(pl.col(c.name).count() > 0).then(how[c.merge](pl.col(c.name))).alias(c.name)
            for c in plain
        ]
        keys = [pl.col(k).last() for k in KEYS if k not in by]
        rows = self._complete(rows)
        merged = rows.group_by(by, maintain_order=True).agg(*keys, *aggs)
        for counter in self.counters:
            if counter.dtype.is_nested():
                lists = _sums_of_lists(rows, counter.name, by)
                merged = merged.join(lists, on=by, how="left", nulls_equal=True)
        return self.compute(merged)

    def _complete(self, rows: pl.DataFrame) -> pl.DataFrame:
        known = frozenset(rows.columns)
        columns = self._columns.get(known)
        if columns is None:  # kept, since to build them takes longer than to compute them
            columns = self._columns[known] = [
                (pl.col(name) if name in known else pl.lit(None)).cast(dtype).alias(name)
                for name, dtype in (KEYS | self.counter_schema).items()
            ]
        return rows.select(columns)


def _sums_of_lists(rows: pl.DataFrame, name: str, by: list[str]) -> pl.DataFrame:
    """Lists of each group added up element by element."""
    place = pl.int_ranges(pl.col(name).list.len()).alias("_place")
    elements = rows.select(*by, name).drop_nulls(name).with_columns(place).explode(name, "_place")
    sums = elements.group_by(*by, "_place").agg(pl.col(name).sum())
    return sums.sort("_place").group_by(by, maintain_order=True).agg(name)
