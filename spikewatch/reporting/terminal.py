"""The picture of a run on a terminal: layers, logged values, what fires. Drawn with rich."""

from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..alerts.check import alerts_of
from ..alerts.lines import diagnosis, place
from ..alerts.verdict import follow, judge
from .summary import COLUMNS, layers_now, scalars_now


if TYPE_CHECKING:
    from ..store import Store

_COLOURS = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
_STATES = {"running": "green", "finished": "blue", "failed": "red", "lost": "red"}
_MOST_ALERTS = 8


def picture(store: "Store", run: str) -> Group:
    """All that is to be seen of a run now."""
    facts = store.runs().filter(run=run).row(0, named=True)
    verdict = judge(run, alerts_of(store, run), fail_on="warning", state="finished")
    firing = verdict.roots.filter(state="firing")
    head = Text.assemble(
        (run, "bold"),
        "  ",
        (facts["state"], _STATES[facts["state"]]),
        f"  step {facts['last_step']}",
    )
    layers = layers_now(store, run)
    parts: list[Any] = [head]
    if layers.height:
        parts.append(_layers(layers, dict(firing.select("layer", "severity").rows()[::-1])))
    if (scalars := scalars_now(store, run)).height:
        values = (f"{name} {value:.4g}" for name, _, value in scalars.iter_rows())
        parts.append(Text("   ".join(values), style="dim"))
    parts += _alerts(firing, verdict.roots.height - firing.height)
    return Group(*parts)


def _layers(layers: pl.DataFrame, ill: dict[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("layer", no_wrap=True)
    shown = [c for c in COLUMNS if layers[c[0]].null_count() < layers.height]
    for _, heading, _ in shown:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in layers.iter_rows(named=True):
        style = _COLOURS.get(ill.get(row["layer"], ""), "")
        table.add_row(escape(row["layer"]), *(_figure(row[c], f) for c, _, f in shown), style=style)
    return table


def _figure(value: float | None, is_fraction: bool) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.3g} %" if is_fraction else f"{value:.3g}"


def _alerts(firing: pl.DataFrame, n_over: int) -> list[Text]:
    if firing.is_empty():
        over = f" ({n_over} fired before, and ended)" if n_over else ""
        return [Text(f"✓ no alert fires now{over}", style="green")]
    lines = []
    for row in firing.head(_MOST_ALERTS).iter_rows(named=True):
        more = f"  + {follow(row['n_following'])}" if row["n_following"] else ""
        lines.append(
            Text.assemble(
                (f"{row['severity'].upper()} {row['rule']}", _COLOURS[row["severity"]]),
                f" on {place(row)} since step {row['since_step']}{more}: {diagnosis(row)}",
            )
        )
    if firing.height > _MOST_ALERTS:
        lines.append(Text(f"and {firing.height - _MOST_ALERTS} more; `spikewatch check` has them"))
    return lines
