"""What a rule says of each row, in three columns: the same from Polars (live) and DuckDB (history).

* known: the row has one of the figures that the condition is computed from. Where it has none, the
  rule is not about it, whatever `COALESCE` or `IS NULL` make of that.
* holds: the condition, true, false or NULL.
* clears: `clear`, where the rule has one.

Plain columns, because Polars takes several times as long for `CASE WHEN`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl


if TYPE_CHECKING:
    from .rule import Rule

ROW = ("phase", "step", "layer", "at")


def known(i: int) -> str:
    """Column of rule number `i`; see above."""
    return f"known {i}"


def holds(i: int) -> str:
    """Column of rule number `i`; see above."""
    return f"holds {i}"


def clears(i: int) -> str:
    """Column of rule number `i`; see above."""
    return f"clears {i}"


def judging_columns(rules: Sequence["Rule"]) -> list[pl.Expr]:
    """What `Machine.walk` needs, as Polars expressions over the wide frame."""
    columns = [pl.col(name) for name in _carried(rules)]
    for i, rule in enumerate(rules):
        evidence = (pl.col(c).is_not_null() for c in rule.condition.evidence)
        columns.append(pl.any_horizontal(evidence).alias(known(i)))
        columns.append(rule.condition.expr.alias(holds(i)))
        if rule.clear_condition:
            columns.append(rule.clear_condition.expr.alias(clears(i)))
    return columns


def judging_sql(rules: Sequence["Rule"], source: str) -> str:
    """The same as a query over rows like those of the view `wide`, with their rank, in order."""
    columns = [f'"{name}"' for name in dict.fromkeys(["rank", *_carried(rules)])]
    for i, rule in enumerate(rules):
        evidence = " OR ".join(f'"{c}" IS NOT NULL' for c in rule.condition.evidence)
        columns.append(f'({evidence}) AS "{known(i)}"')
        # A line of its own, because an expression may end in a comment.
        columns.append(f'({rule.condition.sql}\n) AS "{holds(i)}"')
        if rule.clear_condition:
            columns.append(f'({rule.clear_condition.sql}\n) AS "{clears(i)}"')
    return f'SELECT {", ".join(columns)} FROM {source} ORDER BY "rank", step, phase, "at", layer'  # noqa: S608


def _carried(rules: Sequence["Rule"]) -> list[str]:
    return list(dict.fromkeys([*ROW, *(rule.figure for rule in rules)]))
