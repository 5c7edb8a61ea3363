"""`check`: was a run healthy? From the alerts that fired, or from its history by other rules."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from ..errors import RuleError
from ..metrics import TABLES
from ..metrics.wide import COLUMNS
from .expression import own_counters
from .loading import load_rules
from .mistakes import suggest
from .replay import replay
from .rule import SEVERITIES, Rule
from .verdict import Verdict, judge, nothing


if TYPE_CHECKING:
    from ..store import Store


def check_run(
    store: "Store",
    run: str,
    *,
    fail_on: str = "warning",
    rules: Sequence[Rule] | str | Path | None = None,
) -> Verdict:
    """Judge a run.

    Args:
        store: Where it is.
        run: Its name.
        fail_on: The least severity that counts.
        rules: Judge the run's history by these (or by the shipped ones and this file), instead of
            by what fired while it trained.

    Raises:
        RuleError: `fail_on` is no severity, or the rules are wrong.
    """
    if fail_on not in SEVERITIES:
        raise RuleError(f"`fail_on` was {fail_on!r}. {suggest(fail_on, SEVERITIES)}")
    if isinstance(rules, str | Path):
        rules = load_rules(rules)
    known = store.runs()
    if run not in known["run"]:
        return nothing(run, _no_such_run(run, known["run"].to_list()))
    if not _was_observed(store, run):
        return nothing(
            run,
            f"run {run!r}: no layer was ever observed. Was it killed in its first second, or does "
            "its model run inside torch.compile? The table `events` tells more.",
        )
    notes: tuple[str, ...] = ()
    if rules is None:
        alerts = alerts_of(store, run)
    else:
        replayed = replay(store, run, rules)
        alerts, notes = replayed.alerts, replayed.never_judged
    state = known.filter(run=run)["state"].item()
    absent = _absent(store, run, alerts)
    return judge(run, alerts, fail_on=fail_on, state=state, notes=notes, absent=absent)


def alerts_of(store: "Store", run: str) -> pl.DataFrame:
    """The transitions of a run as they were stored while it trained, in order."""
    return store.sql('SELECT * FROM alerts WHERE run = $run ORDER BY step, "at"', {"run": run})


def _absent(store: "Store", run: str, alerts: pl.DataFrame) -> set[tuple[str, str]]:
    """Layers and figures of unknown rules that no observation will ever give.

    A figure is absent where not one of the counters that it is computed from was ever known: there
    is no graph, say, or no such parameter. With some of them known it only lacks evidence.
    """
    asked = alerts.filter(state="unknown").select("layer", "metric").unique()
    metrics = [m for m in asked["metric"].unique().sort().to_list() if m in COLUMNS]
    if not metrics:
        return set()
    seen = ", ".join(
        f"bool_or({' OR '.join(f'{c} IS NOT NULL' for c in own_counters(m))}) AS {m}"
        for m in metrics
    )
    rows = store.sql(
        f"SELECT layer, {seen} FROM wide WHERE run = $run GROUP BY layer",  # noqa: S608 - our names
        {"run": run},
    )
    known = {row["layer"]: row for row in rows.iter_rows(named=True)}
    return {
        (layer, metric)
        for layer, metric in asked.iter_rows()
        if metric in metrics and layer in known and not known[layer][metric]
    }


def _was_observed(store: "Store", run: str) -> bool:
    seen = " OR ".join(f"EXISTS (FROM {table} WHERE run = $run)" for table in TABLES)
    return store.sql(f"SELECT {seen} AS seen", {"run": run})["seen"].item()


def _no_such_run(run: str, known: list[str]) -> str:
    if not known:
        return (
            f"There is no run {run!r}, nor any other. Train with `spikewatch.attach(model)` first."
        )
    close = difflib.get_close_matches(run, known, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    more = f" and {len(known) - 10} more" if len(known) > 10 else ""
    return f"There is no run {run!r}. {hint}Runs, newest first: {', '.join(known[:10])}{more}."
