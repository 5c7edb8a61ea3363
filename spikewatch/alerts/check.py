"""`check`: was a run healthy? From the alerts that fired, or from its history by other rules."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ..errors import RuleError
from ..metrics import RECORDS, TABLES
from .expression import suggest
from .lines import diagnosis, place
from .loading import load_rules
from .replay import replay
from .rule import SEVERITIES, Rule


if TYPE_CHECKING:
    from ..store import Store

_LANE = ["rank", "phase", "rule", "layer"]
_MAX_NAMED = 4


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a run.

    Attributes:
        run: Its name.
        exit_code: 0 healthy, 1 an alert of the asked severity fired at some time, 2 there is
            nothing to judge.
        fired: Every alert that fired, of any severity, worst first: the row of the table `alerts`
            of its first firing, with its `state` now (`firing` or `resolved`), `n_fired` (how
            often) and `last_step` (of the latest change).
        unknown: `rule`, `phase`, `layer` (and rank) for which there was never enough evidence.
        lines: All of it in words.
    """

    run: str
    exit_code: int
    fired: pl.DataFrame
    unknown: pl.DataFrame
    lines: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the run was judged and found healthy."""
        return self.exit_code == 0


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
        return _nothing(run, _no_such_run(run, known["run"].to_list()))
    if not _was_observed(store, run):
        return _nothing(
            run,
            f"run {run!r}: no layer was ever observed. Was it killed in its first second, or does "
            "its model run inside torch.compile? The table `events` tells more.",
        )
    alerts = _alerts(store, run) if rules is None else replay(store, run, rules).alerts
    state = known.filter(run=run)["state"].item()
    return _judge(run, alerts, fail_on=fail_on, state=state)


def _alerts(store: "Store", run: str) -> pl.DataFrame:
    return store.sql('SELECT * FROM alerts WHERE run = $run ORDER BY step, "at"', {"run": run})


def _was_observed(store: "Store", run: str) -> bool:
    seen = " OR ".join(f"EXISTS (FROM {table} WHERE run = $run)" for table in TABLES)
    return store.sql(f"SELECT {seen} AS seen", {"run": run})["seen"].item()


def _judge(run: str, alerts: pl.DataFrame, *, fail_on: str, state: str) -> Verdict:
    lanes = alerts.group_by(_LANE, maintain_order=True).agg(
        pl.col("state").last().alias("latest"), pl.col("step").last().alias("last_step")
    )
    fired = _fired(alerts, lanes)
    unknown = lanes.filter(latest="unknown").select(_LANE)
    grave = SEVERITIES[SEVERITIES.index(fail_on) :]
    n_grave = fired.filter(pl.col("severity").is_in(grave)).height
    judged = lanes.filter(pl.col("latest") != "unknown")
    if n_grave:
        code, head = 1, f"{_count(n_grave, 'alert')} of severity {fail_on} or above"
    elif judged.height:
        n_rules, n_layers = judged["rule"].n_unique(), judged["layer"].n_unique()
        code, head = 0, f"healthy by {_count(n_rules, 'rule')} on {_count(n_layers, 'layer')}"
    else:
        code, head = 2, "no rule could be judged; observe more steps"
    if state != "finished":
        words = {"running": "still running", "failed": "ended by an exception", "lost": "killed"}
        head += f" ({words.get(state, state)})"
    lines = [
        f"run {run!r}: {head}",
        *map(_fired_line, fired.iter_rows(named=True)),
        *_unknown_lines(unknown),
    ]
    return Verdict(run, code, fired, unknown, tuple(lines))


def _fired(alerts: pl.DataFrame, lanes: pl.DataFrame) -> pl.DataFrame:
    firing = alerts.filter(state="firing")
    first = firing.group_by(_LANE, maintain_order=True).first()
    often = firing.group_by(_LANE).agg(pl.len().cast(pl.Int64).alias("n_fired"))
    order = {severity: -i for i, severity in enumerate(SEVERITIES)}
    return (
        first.join(often, on=_LANE)
        .join(lanes, on=_LANE)
        .with_columns(
            pl.when(latest="firing")
            .then(pl.lit("firing"))
            .otherwise(pl.lit("resolved"))
            .alias("state")
        )
        .drop("latest")
        .select(*alerts.columns, "n_fired", "last_step")
        .sort(pl.col("severity").replace_strict(order, return_dtype=pl.Int8), "since_step", *_LANE)
    )


def _fired_line(row: dict[str, Any]) -> str:
    now = "still firing" if row["state"] == "firing" else f"resolved at step {row['last_step']}"
    often = f", fired {row['n_fired']} times" if row["n_fired"] > 1 else ""
    return (
        f"{row['severity'].upper()} {row['rule']} on {place(row)} since step {row['since_step']}, "
        f"{now}{often}: {diagnosis(row)}"
    )


def _unknown_lines(unknown: pl.DataFrame) -> list[str]:
    """One line for each rule that had no verdict on some layers."""
    lines = []
    for (rule,), lanes in unknown.group_by("rule", maintain_order=True):
        layers = list(dict.fromkeys(map(place, lanes.iter_rows(named=True))))
        more = f" and {len(layers) - _MAX_NAMED} more" if len(layers) > _MAX_NAMED else ""
        lines.append(
            f"unknown {rule} on {', '.join(layers[:_MAX_NAMED])}{more}: not enough evidence"
        )
    return lines


def _nothing(run: str, why: str) -> Verdict:
    schema = RECORDS["alerts"]
    fired = pl.DataFrame(schema=schema | {"n_fired": pl.Int64, "last_step": schema["step"]})
    return Verdict(run, 2, fired, fired.select(_LANE), (why,))


def _no_such_run(run: str, known: list[str]) -> str:
    if not known:
        return (
            f"There is no run {run!r}, nor any other. Train with `spikewatch.attach(model)` first."
        )
    close = difflib.get_close_matches(run, known, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    more = f" and {len(known) - 10} more" if len(known) > 10 else ""
    return f"There is no run {run!r}. {hint}Runs, newest first: {', '.join(known[:10])}{more}."


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s'[: n != 1]}"
