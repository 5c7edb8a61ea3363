"""What an alert looks like on a terminal: one line."""

import math
from collections.abc import Mapping
from typing import Any

from ..metrics import METRICS


def alert_line(row: Mapping[str, Any]) -> str:
    """The line that is printed when an alert changes its state.

    Args:
        row: A row of the table `alerts`.
    """
    if row["state"] == "resolved":
        since = f"fired since step {row['since_step']}"
        return (
            f"spikewatch resolved {row['rule']} on {place(row)} at step {row['step']} "
            f"({since}): {figure(row)}"
        )
    head = f"{row['severity'].upper()} {row['rule']} {row['state']}"
    line = f"spikewatch {head} on {place(row)} since step {row['since_step']}: {diagnosis(row)}"
    return f"{line} {family(row)}".rstrip()


def family(row: Mapping[str, Any]) -> str:
    """What follows from it, or what it follows from; empty if nothing."""
    if row.get("root_rule"):
        return f"It follows from {row['root_rule']} on {row['root_layer']!r}."
    n = row.get("n_following") or 0
    return f"+ {n} that follow{'s'[: n == 1]} from it." if n else ""


def place(row: Mapping[str, Any]) -> str:
    """The layer, with phase and rank where they are not what everyone expects."""
    where = [row["phase"]] if row["phase"] != "train" else []
    where += [f"rank {row['rank']}"] if row["rank"] else []
    return repr(row["layer"]) + (f" ({', '.join(where)})" if where else "")


def diagnosis(row: Mapping[str, Any]) -> str:
    """What is wrong, the figure, what it likely comes from and what to try."""
    summary = _tidy(row["summary"]).rstrip(".")
    text = f"{summary} ({figure(row)})." if summary else f"{figure(row)}."
    for label, name in (("Likely", "likely"), ("Try", "advice")):
        if words := _tidy(row[name]):
            text += f" {label}: {words.rstrip('.')}."
    return text


def figure(row: Mapping[str, Any]) -> str:
    """Metric and value, a fraction in percent."""
    metric, value = row["metric"], row["value"]
    if value is None:
        return f"{metric} unknown"
    known = METRICS.get(metric)
    if known is not None and known.unit == "fraction" and math.isfinite(value):
        return f"{metric} {100 * value:.3g} %"
    return f"{metric} {value:.4g}"


def _tidy(text: str | None) -> str:
    return " ".join((text or "").split())
