"""Alert transitions as the pages show them: spans on a time line, and what fires now."""

import re

import polars as pl

from spikewatch.alerts.rule import load_rules
from spikewatch.metrics import METRICS

from .charts.style import percent


SEVERITIES = ("critical", "warning", "info")
_LANE = ["rank", "phase", "rule", "layer"]
_SPAN = {
    "rule": pl.String(),
    "layer": pl.String(),
    "severity": pl.String(),
    "state": pl.String(),
    "begin": pl.Int64(),
    "end": pl.Int64(),
    "value_text": pl.String(),
}


def threshold_of(metric: str) -> float | None:
    """Where the shipped rules begin to complain of a metric that is too high.

    The pictures take their colours from this, so that they and the alerts cannot disagree.
    """
    pattern = re.compile(rf"\b{re.escape(metric)}\s*>=?\s*([0-9]*\.?[0-9]+)")
    found = [match for rule in load_rules(None) for match in pattern.findall(rule.expr)]
    return min(map(float, found), default=None)


def metric_text(metric: str | None, value: float | None) -> str:
    """A figure as the reader sees it: fractions in percent, all else with three digits."""
    if value is None:
        return "–"
    known = METRICS.get(metric or "")
    return percent(value) if known and known.unit == "fraction" else f"{value:.3g}"


def firing(alerts: pl.DataFrame) -> pl.DataFrame:
    """The rows of the alerts that fire now, worst first.

    Args:
        alerts: Transitions of one run, in order.
    """
    last = alerts.group_by(_LANE, maintain_order=True).last()
    return last.filter(pl.col("state") == "firing").sort(_badness(), "since_step")


def spans(alerts: pl.DataFrame, *, last_step: int) -> pl.DataFrame:
    """Bars of the time line: from when to when a rule was pending or fired on a layer.

    Args:
        alerts: Transitions of one run, in order.
        last_step: Where bars end that have not ended.

    Returns:
        `rule`, `layer`, `severity`, `state` (pending | firing | resolved), `begin`, `end`,
        `value_text`; firing lanes first, then by severity and age.
    """
    rows: list[dict[str, object]] = []
    for _, lane in alerts.group_by(_LANE, maintain_order=True):
        rows += _lane_spans(lane.rows(named=True), last_step)
    if not rows:
        return pl.DataFrame(schema=_SPAN)
    now = pl.col("state").is_in(["firing", "pending"]).any().over("rule", "layer")
    return pl.DataFrame(rows, schema=_SPAN).sort(~now, _badness(), "begin")


def _lane_spans(rows: list[dict[str, object]], last_step: int) -> list[dict[str, object]]:
    bars = []
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        state = row["state"]
        if state not in ("pending", "firing") or (
            state == "pending" and after is not None and after["state"] == "firing"
        ):
            continue
        over = after is not None
        begin = row["since_step"] if row["since_step"] is not None else row["step"]
        text = f"{row['metric']} {metric_text(row['metric'], row['value'])}"  # ty: ignore[invalid-argument-type]
        bars.append(
            {k: row[k] for k in ("rule", "layer", "severity")}
            | {
                "state": "resolved" if over and state == "firing" else state,
                "begin": begin,
                "end": after["step"] if after is not None else last_step,
                "value_text": text,
            }
        )
    return bars


def _badness() -> pl.Expr:
    order = {name: i for i, name in enumerate(SEVERITIES)}
    return pl.col("severity").replace_strict(order, default=len(order), return_dtype=pl.Int8)
