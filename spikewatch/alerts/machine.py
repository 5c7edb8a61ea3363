"""The state machine: verdicts in, transitions out.

    unknown → ok ⇄ pending → firing → resolved → (pending | firing)

One state per rule, phase and layer. It exists from the first row that has a figure which the rule
is about, so a rule about weights has no state on a layer without weights. No verdict changes
nothing: unknown is never ok, never fires, and never ends firing. A layer that has no rows any more
brings its states to `no-data`, apart from those that fire; the next verdict takes them out of it.
A rule that cannot be evaluated gets `error`, once.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from ..metrics import RECORDS
from .endings import Ending
from .grouping import Family, Lane, causes_of
from .judging import clears, holds, known
from .liveness import GONE
from .moments import MOMENT


if TYPE_CHECKING:
    from .rule import Rule

Key = tuple[str, str]  # phase, layer
Change = tuple[int, int, str, int | None]  # row, number of the rule, state, since_step

# Made once, since Polars takes a millisecond or more for it, and mostly there are none.
NO_TRANSITIONS = pl.DataFrame(schema=RECORDS["alerts"])

STATES = ("unknown", "ok", "pending", "firing", "resolved", "no-data", "error")
_QUIET = ("ok", "resolved")


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

    def lose(self) -> bool:
        """Take it that the layer is gone; whether the state changed."""
        if self.name in ("firing", "no-data"):
            return False
        self.name, self.since_step = "no-data", None
        return True

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
        # Where nothing changes unless the condition holds: ok or resolved. In a healthy run that is
        # nearly all there is, and such a row costs next to nothing.
        self._quiet: set[Key] = set()
        self._others: set[Key] = set()  # that the rule does not look at

        self.was_judged = False
        """Whether there ever was a row with a figure that the rule is about."""

    def end(self, ending: Ending) -> list[tuple[Key, str]]:
        """Forget a layer; returns its keys, and what becomes of its states."""
        ended = []
        for key in [k for k in self._states if ending.is_of(k[1])]:
            state = self._states.pop(key)
            self._quiet.discard(key)
            if state.name == "firing":
                ended.append((key, "resolved"))
            elif state.lose():
                ended.append((key, "no-data"))
        self._others = {k for k in self._others if not ending.is_of(k[1])}
        return ended

    def walk(self, batch: "_Batch", kinds: dict[str, str]) -> list[Change]:
        """Take the verdicts on rows in step order."""
        i, rule = self._number, self._rule
        judged = batch.columns
        if known(i) not in judged:  # no row has a figure that the rule is about
            return self._lose_all(batch)
        loud = batch.rows_of.keys() - self._quiet
        if loud:  # most rules are about nothing that most layers have
            loud &= batch.keys_where(judged[known(i)])
        loud |= batch.keys_where(judged[holds(i)]) | batch.gone_keys
        loud -= self._others
        self._others |= {k for k in loud if not rule.looks_at(*k, batch.kind(k[1], kinds))}
        loud -= self._others
        if not loud:
            return []
        is_known, verdicts = judged[known(i)].to_list(), judged[holds(i)].to_list()
        clear = judged[clears(i)].to_list() if rule.clear else None
        changes = []
        for key in loud:
            for row in batch.rows_of[key]:
                step = batch.steps[row]
                if is_known[row]:
                    verdict = verdicts[row] if step >= rule.after_step else None
                    may_end = clear is None or bool(clear[row])
                    changed = self._take(key, verdict, clear=may_end, step=step)
                else:
                    changed = row in batch.gone and self._lose(key)
                if changed:
                    state = self._states[key]
                    changes.append((row, i, state.name, state.since_step))
        return changes

    def _lose_all(self, batch: "_Batch") -> list[Change]:
        """Take it that layers are gone."""
        lost = [row for row in batch.gone if self._lose(batch.keys[row])]
        return [(row, self._number, "no-data", None) for row in lost]

    def _take(self, key: Key, verdict: bool | None, *, clear: bool, step: int) -> bool:
        is_new = key not in self._states
        self.was_judged = True
        state = self._states.setdefault(key, _State())
        changed = state.advance(verdict, clear=clear, step=step, rule=self._rule)
        if changed:
            self._listen(key, state)
        return changed or is_new

    def _lose(self, key: Key) -> bool:
        state = self._states.get(key)
        if state is None or not state.lose():
            return False
        self._listen(key, state)
        return True

    def _listen(self, key: Key, state: _State) -> None:
        quiet = state.name in _QUIET
        (self._quiet.add if quiet else self._quiet.discard)(key)


class _Batch:
    """Judged rows, and where each layer's are."""

    def __init__(self, judged: pl.DataFrame) -> None:
        self.judged = judged
        self.columns = {series.name: series for series in judged.get_columns()}
        self.steps: list[int] = judged["step"].to_list()
        self.layers: list[str] = judged["layer"].to_list()
        self.phases: list[str] = judged["phase"].to_list()
        self.keys: list[Key] = list(zip(self.phases, self.layers, strict=True))
        self.rows_of: dict[Key, list[int]] = defaultdict(list)
        for row, key in enumerate(self.keys):
            self.rows_of[key].append(row)
        self.gone = {row for row, gone in enumerate(judged[GONE].to_list()) if gone}
        self.gone_keys = {self.keys[row] for row in self.gone}
        scalars = judged.filter(pl.col("value").is_not_null())["layer"]
        self._scalars = set(scalars.to_list())

    def keys_where(self, flags: pl.Series) -> set[Key]:
        """Keys of the rows that a Boolean column is true of."""
        # By way of lists: `Series.arg_true` makes and runs a query, which takes ten times as long.
        return set(itertools.compress(self.keys, flags.to_list())) if flags.any() else set()

    def kind(self, layer: str, kinds: dict[str, str]) -> str:
        """What kind of layer it is; `scalar` for what the user logs."""
        return kinds.get(layer) or ("scalar" if layer in self._scalars else "")

    def where(self, row: int) -> dict[str, Any]:
        """The phase, step, layer and time of a row."""
        return {name: self.judged.item(row, name) for name in ("phase", "step", "layer", "at")}

    def moments(self) -> Iterator[range]:
        """Rows that came in together."""
        ids = self.judged[MOMENT].to_list()
        first = 0
        for row in range(1, len(ids) + 1):
            if row == len(ids) or ids[row] != ids[first]:
                yield range(first, row)
                first = row


class Machine:
    """The states of all rules in one rank of one run.

    Attributes:
        depths: Of the layers, from the input on; the caller fills it as they become known.
        kinds: Of the layers, the same.
    """

    def __init__(self, rules: Sequence["Rule"], *, run: str, rank: int) -> None:
        self.depths: dict[str, int] = {}
        self.kinds: dict[str, str] = {}
        self._keys = {"run": run, "rank": rank}
        self._rules = list(rules)
        self._tracks = [_Track(i, rule) for i, rule in enumerate(rules)]
        self._families: defaultdict[str, Family] = defaultdict(lambda: Family(causes))
        causes = causes_of(rules)

    def never_judged(self) -> list["Rule"]:
        """Rules none of whose figures ever came."""
        return [
            r for r, track in zip(self._rules, self._tracks, strict=True) if not track.was_judged
        ]

    def walk(self, judged: pl.DataFrame) -> pl.DataFrame:
        """Take verdicts.

        Args:
            judged: What `Judge.judge` gives; each layer's rows in step order.

        Returns:
            A row of the table `alerts` per transition, in the order of `judged`. The first verdict
            is one too: to `unknown`, `ok`, `pending` or `firing`. So is another root of an alert
            that fires.
        """
        batch = _Batch(judged)
        changes = [c for track in self._tracks for c in track.walk(batch, self.kinds)]
        if not changes and not any(f.has_orphans for f in self._families.values()):
            return NO_TRANSITIONS
        changed: dict[int, list[Change]] = defaultdict(list)
        for change in sorted(changes, key=lambda c: c[:2]):
            changed[change[0]].append(change)
        rows: list[dict[str, Any]] = []
        for moment in batch.moments():
            of_moment = [c for row in moment for c in changed.get(row, ())]
            rows += self._settle(batch, moment, of_moment)
        return pl.DataFrame(rows, schema=RECORDS["alerts"])

    def end(self, ending: Ending) -> pl.DataFrame:
        """Forget a layer: what fires on it is resolved, and of all else there is no data."""
        rows: list[dict[str, Any]] = []
        when = {"step": ending.step, "at": ending.at}
        for number, track in enumerate(self._tracks):
            for (phase, layer), state in track.end(ending):
                family = self._families[phase]
                lane = family.change(number, layer, state, None)
                where = when | {"phase": phase, "layer": layer}
                row = self._row(where, number, state, None, None)
                rows.append(row | self._rooted(family, lane, state))
        for phase in dict.fromkeys(row["phase"] for row in rows):
            moved = self._families[phase].settle(ending.step, self.depths)
            rows += [self._moved(when | {"phase": phase}, lane) for lane in moved]
        return pl.DataFrame(rows, schema=RECORDS["alerts"]) if rows else NO_TRANSITIONS

    def failed(self, number: int, why: str, judged: pl.DataFrame) -> pl.DataFrame:
        """The transition of a rule that cannot be evaluated to `error`."""
        rule = self._rules[number]
        row = dict.fromkeys(RECORDS["alerts"]) | self._keys | self._words(rule, ill=False)
        row |= {name: judged.item(0, name) for name in ("phase", "step", "at")}
        row |= {"layer": "", "state": "error", "summary": f"The rule cannot be evaluated: {why}"}
        return pl.DataFrame([row], schema=RECORDS["alerts"])

    def _settle(self, batch: _Batch, moment: range, changes: list[Change]) -> list[dict[str, Any]]:
        """Rows of the transitions of one moment, each with its root."""
        family = self._families[batch.phases[moment[0]]]
        if not changes and not family.has_orphans:
            return []
        lanes: list[Lane | None] = []
        for row, number, state, since_step in changes:
            lane = family.change(number, batch.layers[row], state, since_step)
            if lane is not None:
                lane.value = self._value(batch, row, number)
            lanes.append(lane)
        moved = family.settle(batch.steps[moment[0]], self.depths)
        rows = []
        for (row, number, state, since_step), lane in zip(changes, lanes, strict=True):
            value = self._value(batch, row, number)
            changed = self._row(batch.where(row), number, state, since_step, value)
            rows.append(changed | self._rooted(family, lane, state))
        told = {id(lane) for lane in lanes}
        here = batch.where(moment[0])
        rows += [self._moved(here, lane) for lane in moved if id(lane) not in told]
        return rows

    def _moved(self, where: dict[str, Any], lane: Lane) -> dict[str, Any]:
        """The row of an alert that fires on, with another root."""
        # The figure that made it fire: the one of this moment may be well again.
        where = where | {"layer": lane.layer}
        row = self._row(where, lane.number, "firing", lane.since_step, lane.value)
        return row | self._rooted(self._families[where["phase"]], lane, "firing")

    def _rooted(self, family: Family, lane: Lane | None, state: str) -> dict[str, Any]:
        root = lane.root if lane is not None and state in ("firing", "resolved") else None
        tells = lane is not None and root is None and state == "firing"
        return {
            "root_rule": self._rules[root.number].name if root else None,
            "root_layer": root.layer if root else None,
            "n_following": family.followers(lane) if tells and lane is not None else None,
        }

    def _row(
        self,
        where: dict[str, Any],
        number: int,
        state: str,
        since_step: int | None,
        value: float | None,
    ) -> dict[str, Any]:
        rule = self._rules[number]
        return (
            self._keys
            | where
            | self._words(rule, ill=state in ("pending", "firing"))
            | {
                "state": state,
                "since_step": since_step,
                "metric": rule.figure,
                "value": value,
            }
        )

    def _words(self, rule: "Rule", *, ill: bool) -> dict[str, Any]:
        """Words only where someone is going to read them."""
        return {
            "rule": rule.name,
            "severity": rule.severity,
            "summary": rule.summary if ill else None,
            "likely": rule.likely if ill else None,
            "advice": rule.advice if ill else None,
        }

    def _value(self, batch: _Batch, row: int, number: int) -> float | None:
        value = batch.judged.item(row, self._rules[number].figure)
        return None if value is None else float(value)
