"""Engine: rules against the rows of one rank, as they come in, live or from history."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import polars as pl

from ..metrics import TABLES
from ..metrics.wide import widen
from .agreement import check_agreement
from .endings import Ending, Endings
from .history import History
from .judging import Judge
from .liveness import Liveness
from .loading import load_rules
from .machine import NO_TRANSITIONS, Machine
from .moments import TOGETHER, Waiting, in_moments
from .rule import Rule
from .vocabulary import SIGNS_OF_LIFE


class Engine:
    """The rules of one rank of one run, with their states.

    Each `feed` evaluates all rules at once over all its rows, in Polars. What comes out does not
    depend on how the rows are divided among calls of `feed_tables`, which waits for what may still
    come of a step; `feed` takes whole steps.

    Raises:
        RuleError: A rule means something else to DuckDB.
    """

    def __init__(self, rules: Sequence[Rule], *, run: str, rank: int) -> None:
        shipped = load_rules()
        own = [rule for rule in rules if rule not in shipped]
        check_agreement((r.name, c) for r in own for c in r.conditions)
        self._own = own
        self._history = History(x for r in rules for c in r.conditions for x in c.lookbacks)
        self._liveness = Liveness()
        self._judge = Judge(rules)
        self._waiting = Waiting()
        self._endings = Endings()
        self._watched: set[str] = set()
        self._machine = Machine(rules, run=run, rank=rank)

    def place(self, layers: Iterable[tuple[str, int | None, str | None]]) -> None:
        """Take names of layers, each with its depth and kind: the last one."""
        for name, depth, kind in layers:
            if depth is not None:
                self._machine.depths[name] = depth
            if kind:
                self._machine.kinds[name] = kind
                # One more site of a layer comes and goes; of a layer with weights of eight bits
                # there are figures at some steps only.
                if "@" not in name and kind != "quantized":
                    self._watched.add(name)

    def end_layers(self, events: pl.DataFrame) -> None:
        """Take rows of the table `events`, of which some tell that a layer was removed."""
        self._endings.add(events)

    def feed_tables(self, tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
        """Take the frames that are written to the journal, as they come in.

        Returns:
            A row of the table `alerts` for each transition up to the step before the latest one;
            `tick` and `finish` give the rest.
        """
        if "layers" in tables:
            self.place(tables["layers"].select("layer", "depth", "kind").iter_rows())
        if "events" in tables:
            self.end_layers(tables["events"])
        if not tables.keys() & {*TABLES, "scalars"}:
            return NO_TRANSITIONS
        return self.feed(self._waiting.add(widen(tables)))

    def feed(self, wide: pl.DataFrame) -> pl.DataFrame:
        """Take all rows of one or several observed steps.

        Args:
            wide: What `spikewatch.metrics.wide.widen` gives; its steps follow those fed before.

        Returns:
            A row of the table `alerts` for each transition.
        """
        parts = []
        for part in self._endings.divide(wide):
            if isinstance(part, Ending):
                parts.append(self._end(part))
            else:
                parts.append(self._take(self._liveness.extend(in_moments(part), self._watched)))
        return pl.concat([NO_TRANSITIONS, *parts]) if len(parts) != 1 else parts[0]

    def tick(self, now: datetime) -> pl.DataFrame:
        """Take it that nothing more has come in up to now."""
        late = self._waiting.take(before=now - TOGETHER)
        parts = [] if late is None else [self.feed(late)]
        if self._waiting.is_empty:
            parts += map(self._end, self._endings.rest())
        silence = self._liveness.silence(now)
        if silence.height:
            parts.append(self._take(silence))
        return pl.concat(parts) if parts else NO_TRANSITIONS

    def finish(self, now: datetime | None = None) -> pl.DataFrame:
        """Take it that nothing more will come in."""
        late = self._waiting.take()
        parts = [] if late is None else [self.feed(late)]
        parts += map(self._end, self._endings.rest())
        if now is not None:
            parts.append(self.tick(now))
        return pl.concat([NO_TRANSITIONS, *parts])

    def never_judged(self) -> list[str]:
        """Say of each rule that is not a shipped one, and that had nothing to judge, why.

        A rule about silence is not meant: it is judged where there is some.
        """
        own = {r.name for r in self._own if not SIGNS_OF_LIFE.keys() >= set(r.condition.columns)}
        return [_why(r) for r in self._machine.never_judged() if r.name in own]

    def _end(self, ending: Ending) -> pl.DataFrame:
        """A layer is judged no more; what comes under its name begins anew."""
        self._liveness.end(ending)
        self._history.end(ending)
        return self._machine.end(ending)

    def _take(self, rows: pl.DataFrame) -> pl.DataFrame:
        failed = len(self._judge.failed)
        judged = self._judge.judge(self._history.extend(rows))
        transitions = self._machine.walk(judged)
        if len(self._judge.failed) == failed:
            return transitions
        new = list(self._judge.failed.items())[failed:]
        errors = [self._machine.failed(number, why, judged) for number, why in new]
        return pl.concat([*errors, transitions])


def _why(rule: Rule) -> str:
    about = "" if rule.layers == ("*",) else f" of a layer that {' or '.join(rule.layers)} matches"
    return (
        f"rule {rule.name!r} was never judged: no {' or '.join(rule.condition.columns)}{about} "
        f"ever came, in phase {rule.phase}. `spikewatch query` lists what there is."
    )
