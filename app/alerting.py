"""Alert transitions as the pages show them: spans on a time line, and what fires now."""

import re

import polars as pl

from spikewatch.alerts.loading import load_rules
from spikewatch.metrics import METRICS

from .charts.style import percent


SEVERITIES = ("critical", "warning", "info")
_LANE = ["rank", "phase", "rule", "layer"]
_ROOT = ["rank", "phase", "root_rule", "root_layer"]


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
    """The rows of the alerts that fire now and follow from no other, worst first.

    Args:
        alerts: Transitions of one run, in order.

    Returns:
        The columns of `alerts`; `n_following` is how many follow from each now.
    """
    last = alerts.group_by(_LANE, maintain_order=True).last().filter(state="firing")
    following = last.group_by(_ROOT).agg(pl.len().cast(pl.Int64).alias("n_following"))
    return (
        last.filter(pl.col("root_rule").is_null())
        .drop("n_following")
        .join(following, left_on=_LANE, right_on=_ROOT, how="left", maintain_order="left")
        .with_columns(pl.col("n_following").fill_null(0))
        .sort(_badness(), "since_step")
    )


def spans(alerts: pl.DataFrame, *, last_step: int) -> pl.DataFrame:
    """Bars of the time line: from when to when a rule was pending or fired on a layer.

    Args:
        alerts: Transitions of one run, in order.
        last_step: Where bars end that have not ended.

    Returns:
        `rule`, `layer`, `severity`, `state` (pending | firing | resolved), `begin`, `end`,
        `value_text`; firing lanes first, then by severity and age.
    """
    state = pl.col("state")
    # A firing row after a firing row says that the root is another one.
    again = (state == "firing") & (state.shift(1).over(_LANE) == "firing").fill_null(value=False)
    bars = (
        alerts.filter(~again)
        .with_columns(
            pl.col("step").shift(-1).over(_LANE).alias("next_step"),
            state.shift(-1).over(_LANE).alias("next_state"),
        )
        # A pending spell that led to firing is part of the firing one.
        .filter(
            (state == "firing") | ((state == "pending") & pl.col("next_state").ne_missing("firing"))
        )
        .with_columns(
            pl.when((state == "firing") & pl.col("next_step").is_not_null())
            .then(pl.lit("resolved"))
            .otherwise(state)
            .alias("state"),
            pl.coalesce("since_step", "step").alias("begin"),
            pl.coalesce("next_step", pl.lit(last_step)).alias("end"),
        )
    )
    texts = [f"{m} {metric_text(m, v)}" for m, v in bars.select("metric", "value").rows()]
    now = state.is_in(["firing", "pending"]).any().over("rule", "layer")
    return (
        bars.with_columns(pl.Series("value_text", texts, dtype=pl.String))
        .sort(~now, _badness(), "begin", maintain_order=True)
        .select("rule", "layer", "severity", "state", "begin", "end", "value_text")
    )


def _badness() -> pl.Expr:
    order = {name: i for i, name in enumerate(SEVERITIES)}
    return pl.col("severity").replace_strict(order, default=len(order), return_dtype=pl.Int8)
