"""What a rule says of each row, in three columns.

* known: the row has one of the figures that the condition is computed from. Where it has none, the
  rule is not about it, whatever `COALESCE` or `IS NULL` make of that.
* holds: the condition, true, false or NULL.
* clears: `clear`, where the rule has one.

A rule has none of them where no row has such a figure: most figures come in few batches.

Plain columns, because Polars takes several times as long for `CASE WHEN`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from .liveness import GONE
from .moments import MOMENT


if TYPE_CHECKING:
    from .rule import Rule

ROW = ("phase", "step", "layer", "at", "value", GONE, MOMENT)


def known(i: int) -> str:
    """Column of rule number `i`; see above."""
    return f"known {i}"


def holds(i: int) -> str:
    """Column of rule number `i`; see above."""
    return f"holds {i}"


def clears(i: int) -> str:
    """Column of rule number `i`; see above."""
    return f"clears {i}"


class Judge:
    """All rules at once, as columns. A rule that cannot be evaluated says nothing more."""

    def __init__(self, rules: Sequence["Rule"]) -> None:
        self._rules = rules
        self._columns = {i: _columns(i, rule) for i, rule in enumerate(rules)}
        self._carried = [*map(pl.col, dict.fromkeys([*ROW, *(r.figure for r in rules)]))]
        self.failed: dict[int, str] = {}

    def judge(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows with what `Machine.walk` needs of them; new entries of `failed` say why not."""
        columns = self._columns_about(rows)
        try:
            return rows.select(columns)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            self._find_culprits(rows)
            return rows.select(self._columns_about(rows))

    def _columns_about(self, rows: pl.DataFrame) -> list[pl.Expr]:
        """Those of the rules that have something to judge."""
        told = {s.name for s in rows.get_columns() if s.null_count() < rows.height}
        columns = [*self._carried]
        for i, rule in enumerate(self._rules):
            if not told.isdisjoint(rule.condition.evidence):
                columns += self._columns[i]
        return columns

    def _find_culprits(self, rows: pl.DataFrame) -> None:
        for i, columns in self._columns.items():
            try:
                rows.select(columns)
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
                self.failed[i] = str(error).strip().partition("\n")[0]
                nothing = {known(i): False, holds(i): None, clears(i): None}
                self._columns[i] = [pl.lit(v, pl.Boolean).alias(n) for n, v in nothing.items()]


def _columns(i: int, rule: "Rule") -> list[pl.Expr]:
    evidence = (pl.col(c).is_not_null() for c in rule.condition.evidence)
    columns = [pl.any_horizontal(evidence).alias(known(i)), rule.condition.expr.alias(holds(i))]
    if rule.clear_condition:
        columns.append(rule.clear_condition.expr.alias(clears(i)))
    return columns
