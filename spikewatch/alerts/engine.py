"""Engine: rules against the live frame."""

from collections.abc import Sequence

import polars as pl

from .agreement import check_agreement
from .judging import judging_columns
from .machine import Machine
from .rule import Rule, load_rules


class Engine:
    """The rules of one rank of one run, with their states.

    Each `feed` evaluates all rules at once over all its rows, in Polars.

    Raises:
        RuleError: A rule means something else when it is replayed from DuckDB.
    """

    def __init__(self, rules: Sequence[Rule], *, run: str, rank: int) -> None:
        shipped = load_rules()
        own = [rule for rule in rules if rule not in shipped]
        check_agreement((r.name, c) for r in own for c in (r.condition, r.clear_condition))
        self._columns = judging_columns(rules)
        self._machine = Machine(rules, run=run, rank=rank)

    def feed(self, wide: pl.DataFrame) -> pl.DataFrame:
        """Take the rows of one or several observed steps.

        Args:
            wide: What `spikewatch.metrics.wide.widen` gives; its steps follow those fed before.

        Returns:
            A row of the table `alerts` for each transition.
        """
        return self._machine.walk(wide.select(self._columns))
