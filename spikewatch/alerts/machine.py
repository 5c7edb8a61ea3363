"""The state machine: verdicts in, transitions out.

    unknown → ok ⇄ pending → firing → resolved → (pending | firing)

One state per rule, phase and layer. It exists from the first row that has a figure which the rule
is about, so a rule about weights has no state on a layer without weights. No verdict changes
nothing: unknown is never ok, never fires, and never ends firing.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from ..metrics import RECORDS
from .judging import clears, holds, known


if TYPE_CHECKING:
    from .rule import Rule

Key = tuple[str, str]  # phase, layer
Change = tuple[int, int, str, int | None]  # row, number of the rule, state, since_step


@dataclass(slots=True)
class _State:
    name: str = "unknown"
    since_step: int | None = None
    n_true: int = 0
    n_clear: int = 0

    def advance(self, verdict: bool | None, *, clear: bool, step: int, rule: "Rule") -> bool:
        """Take one verdict; whether the state changed."""
        was = self.name
        if verdict is None:
            return False
        if verdict:
            self._hold(step, rule)
        elif was == "firing":
            self.n_clear = self.n_clear + 1 if clear else 0
            if self.n_clear > rule.keep_firing_for:
                self.name = "resolved"
        elif was != "resolved":
            self.name, self.since_step = "ok", None
        return self.name != was

    def _hold(self, step: int, rule: "Rule") -> None:
        self.n_clear = 0
        if self.name == "firing":
            return
        if self.name != "pending":
            self.since_step, self.n_true = step, 0
        self.n_true += 1
        self.name = "firing" if self.n_true >= rule.for_steps else "pending"


class _Track:
    """The states of one rule."""

    def __init__(self, number: int, rule: "Rule") -> None:
        self._number = number
        self._rule = rule
        self._states: dict[Key, _State] = {}
        # Where nothing changes unless the condition holds: ok, resolved, or not looked at. In a
        # healthy run that is nearly all there is, and such a row costs next to nothing.
        self._quiet: set[Key] = set()

    def walk(
        self, judged: dict[str, pl.Series], rows_of: dict[Key, list[int]], steps: list[int]
    ) -> list[Change]:
        """Take the verdicts on rows in step order."""
        i, rule = self._number, self._rule
        loud = rows_of.keys() - self._quiet
        if judged[holds(i)].any():
            held = set(judged[holds(i)].arg_true().to_list())
            loud |= {key for key, rows in rows_of.items() if not held.isdisjoint(rows)}
        loud = [key for key in loud if rule.looks_at(*key)]
        if not loud:
            return []
        is_known, verdicts = judged[known(i)].to_list(), judged[holds(i)].to_list()
        clear = judged[clears(i)].to_list() if rule.clear else None
        changes = []
        for key in loud:
            for row in rows_of[key]:
                if is_known[row]:
                    verdict = verdicts[row] if steps[row] >= rule.after_step else None
                    may_end = clear is None or bool(clear[row])
                    if self._take(key, verdict, clear=may_end, step=steps[row]):
                        state = self._states[key]
                        changes.append((row, i, state.name, state.since_step))
        return changes

    def _take(self, key: Key, verdict: bool | None, *, clear: bool, step: int) -> bool:
        is_new = key not in self._states
        state = self._states.setdefault(key, _State())
        changed = state.advance(verdict, clear=clear, step=step, rule=self._rule)
        if changed:
            quiet = state.name in ("ok", "resolved")
            (self._quiet.add if quiet else self._quiet.discard)(key)
        return changed or is_new


class Machine:
    """The states of all rules in one rank of one run."""

    def __init__(self, rules: Sequence["Rule"], *, run: str, rank: int) -> None:
        self._keys = {"run": run, "rank": rank}
        self._rules = list(rules)
        self._tracks = [_Track(i, rule) for i, rule in enumerate(rules)]

    def walk(self, judged: pl.DataFrame) -> pl.DataFrame:
        """Take verdicts.

        Args:
            judged: What `judging_columns` or `judging_sql` give; each layer's rows in step order.

        Returns:
            A row of the table `alerts` per transition, in the order of `judged`. The first verdict
            is one too: to `unknown`, `ok`, `pending` or `firing`.
        """
        rows_of: dict[Key, list[int]] = defaultdict(list)
        keys = zip(judged["phase"].to_list(), judged["layer"].to_list(), strict=True)
        for row, key in enumerate(keys):
            rows_of[key].append(row)
        steps = judged["step"].to_list()
        columns = {series.name: series for series in judged.get_columns()}
        changes = [c for track in self._tracks for c in track.walk(columns, rows_of, steps)]
        rows = [self._row(judged, *change) for change in sorted(changes, key=lambda c: c[:2])]
        return pl.DataFrame(rows, schema=RECORDS["alerts"])

    def _row(
        self, judged: pl.DataFrame, row: int, number: int, state: str, since_step: int | None
    ) -> dict[str, Any]:
        rule = self._rules[number]
        value = judged.item(row, rule.figure)
        ill = state in ("pending", "firing")  # words only where someone is going to read them
        return (
            self._keys
            | {name: judged.item(row, name) for name in ("phase", "step", "layer", "at")}
            | {
                "rule": rule.name,
                "severity": rule.severity,
                "state": state,
                "since_step": since_step,
                "metric": rule.figure,
                "value": None if value is None else float(value),
                "summary": rule.summary if ill else None,
                "likely": rule.likely if ill else None,
                "advice": rule.advice if ill else None,
            }
        )
