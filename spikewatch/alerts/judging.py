"""What a rule says of each row, in three columns.

* known: the row has one of the figures that the condition is computed from. Where it has none, the
  rule is not about it, whatever `COALESCE` or `IS NULL` make of that.
* holds: the condition, true, false or NULL.
* clears: `clear`, where the rule has one.

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
        self.failed: dict[int, str] = {}
        self._all = self._of_all()

    def judge(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows with what `Machine.walk` needs of them; new entries of `failed` say why not."""
        try:
            return rows.select(self._all)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            self._find_culprits(rows)
            return rows.select(self._all)

    def _of_all(self) -> list[pl.Expr]:
        carried = dict.fromkeys([*ROW, *(rule.figure for rule in self._rules)])
        return [*map(pl.col, carried), *(c for some in self._columns.values() for c in some)]

    def _find_culprits(self, rows: pl.DataFrame) -> None:
        for i, columns in self._columns.items():
            try:
                rows.select(columns)
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
                self.failed[i] = str(error).strip().partition("\n")[0]
                nothing = {known(i): False, holds(i): None, clears(i): None}
                self._columns[i] = [pl.lit(v, pl.Boolean).alias(n) for n, v in nothing.items()]
        self._all = self._of_all()


def _columns(i: int, rule: "Rule") -> list[pl.Expr]:
    evidence = (pl.col(c).is_not_null() for c in rule.condition.evidence)
    columns = [pl.any_horizontal(evidence).alias(known(i)), rule.condition.expr.alias(holds(i))]
    if rule.clear_condition:
        columns.append(rule.clear_condition.expr.alias(clears(i)))
    return columns
