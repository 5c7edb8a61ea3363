"""The report of a run: one HTML file with verdict, timeline, figures and what to try."""

from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ..alerts.check import alerts_of, check_run
from ..alerts.lines import figure, place
from ..alerts.loading import load_rules
from ..alerts.replay import replay
from ..alerts.verdict import LANE, Verdict, follow, followers
from .summary import COLUMNS, CURVES, curve, layers_now
from .svg import COLOURS, Bar, Line, bars, lines


if TYPE_CHECKING:
    from ..store import Store

_MOST_LINES = 24
_MOST_BARS = 40
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6877; --line: #dde2e8; --paper: #fff;
  --card: #f7f8fa; --critical: #b3261e; --warning: #b26a00; --info: #2b6cb0; --ok: #1b7f4b }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa5b4; --line: #333c48;
  --paper: #12161c; --card: #1a2029; --critical: #ff8a80; --warning: #ffb74d; --info: #7db7f0;
  --ok: #6fd19b } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1040px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem }
.soft { color: var(--soft) } .card { background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: .8rem 1rem; margin: .6rem 0; overflow-wrap: anywhere }
.grid2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr));
  gap: .8rem } .grid2 .card { margin: 0 }
.verdict { font-size: 1.1rem; font-weight: 600 } .ok { color: var(--ok) }
.critical { color: var(--critical) } .warning { color: var(--warning) } .info { color: var(--info) }
svg { width: 100%; height: auto } svg text { font-size: 11px; fill: var(--soft) }
svg .grid { stroke: var(--line) } rect.critical { fill: var(--critical) }
rect.warning { fill: var(--warning) } rect.info { fill: var(--info) } rect.folded { opacity: .45 }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap } th:first-child, td:first-child { text-align: left }
.key { display: flex; flex-wrap: wrap; gap: .1rem .8rem; font-size: .8rem; color: var(--soft) }
.key i { display: inline-block; width: .8rem; height: .2rem; margin-right: .3rem;
  vertical-align: middle }
dl { margin: .4rem 0 0 } dt { font-weight: 600; float: left; margin-right: .4rem } dd { margin: 0 }
"""


def page(store: "Store", run: str, *, rules: str | Path | None = None) -> str:
    """The report as HTML.

    Args:
        store: Where the run is.
        run: Its name.
        rules: Judge its history by these, instead of by what fired while it trained.

    Raises:
        RuleError: The rules are wrong.
    """
    facts = store.runs().filter(run=run).row(0, named=True)
    verdict = check_run(store, run, rules=rules)
    alerts = (
        alerts_of(store, run) if rules is None else replay(store, run, load_rules(rules)).alerts
    )
    parts = [
        f"<h1>{escape(run)}</h1>",
        f'<p class="soft">{escape(_facts(facts))}</p>',
        _verdict(verdict),
        _timeline(verdict, alerts, last_step=facts["last_step"] or 0),
        _what_to_try(verdict),
        _layers(layers_now(store, run)),
        _curves(store, run),
        _unknown(verdict),
        '<p class="soft">Written by spikewatch. Fractions of firing rates, dead and saturated '
        "neurons are shown in percent; a step is an optimizer step.</p>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(run)} · spikewatch</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>"
    )


def _facts(facts: dict[str, Any]) -> str:
    began = facts["started_at"]
    parts = [
        facts["state"],
        f"{(facts['last_step'] or 0) + 1} steps",
        f"{facts['n_layers']} layers",
    ]
    parts += [f"began {began:%Y-%m-%d %H:%M:%S} UTC"] if began else []
    parts += [facts["script"]] if facts["script"] else []
    return " · ".join([*parts, f"report of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"])


def _verdict(verdict: Verdict) -> str:
    head = verdict.lines[0].partition(": ")[2]
    css = ("ok", "critical", "soft")[verdict.exit_code]
    mark = ("✓", "✗", "?")[verdict.exit_code]
    return f'<div class="card"><span class="verdict {css}">{mark} {escape(head)}</span></div>'


def _timeline(verdict: Verdict, alerts: pl.DataFrame, *, last_step: int) -> str:
    drawn = list(_spans(verdict, alerts, last_step))
    if not drawn:
        return ""
    more = (
        f'<p class="soft">and {len(drawn) - _MOST_BARS} more</p>' if len(drawn) > _MOST_BARS else ""
    )
    picture = bars(drawn[:_MOST_BARS], title="When each alert began and ended", last_step=last_step)
    return (
        '<h2>Timeline</h2><div class="card">'
        f'{picture}<p class="soft">Pale: follows from another alert. Steps from left to right.</p>'
        f"{more}</div>"
    )


def _spans(verdict: Verdict, alerts: pl.DataFrame, last_step: int) -> Iterator[Bar]:
    """A bar from each firing to its end, in the verdict's order."""
    ends = alerts.filter(pl.col("state").is_in(["firing", "resolved"]))
    for row in verdict.fired.iter_rows(named=True):
        mine = ends.filter(*(pl.col(c) == row[c] for c in LANE))
        begin: int | None = None
        spans = []
        for step, state, since in mine.select("step", "state", "since_step").iter_rows():
            if state == "firing":
                begin = since if begin is None else begin
            elif begin is not None:
                spans.append((begin, step))
                begin = None
        if begin is not None:
            spans.append((begin, max(begin, last_step)))
        css = row["severity"] + (" folded" if row["root_rule"] else "")
        label = f"{row['rule']} · {row['layer']}"
        for first, last in spans:
            yield Bar(label, first, last, css, f"{label}: steps {first} to {last}")


def _what_to_try(verdict: Verdict) -> str:
    if verdict.roots.is_empty():
        return ""
    cards = []
    for row in verdict.roots.iter_rows(named=True):
        now = "still firing" if row["state"] == "firing" else f"ended at step {row['last_step']}"
        words = [("Likely", row["likely"]), ("Try", row["advice"])]
        if row["n_following"]:
            words.append((f"+ {follow(row['n_following'])}", followers(verdict.fired, row)))
        list_ = "".join(f"<dt>{k}:</dt><dd>{escape(v)}</dd>" for k, v in words if v)
        cards.append(
            f'<div class="card"><b class="{row["severity"]}">{escape(row["rule"])}</b> on '
            f"<b>{escape(place(row))}</b> since step {row['since_step']}, {now}<br>"
            f"{escape(row['summary'] or '')} ({escape(figure(row))}).<dl>{list_}</dl></div>"
        )
    return f"<h2>What is wrong, and what to try</h2>{''.join(cards)}"


def _layers(layers: pl.DataFrame) -> str:
    if layers.is_empty():
        return ""
    shown = [c for c in COLUMNS if layers[c[0]].null_count() < layers.height]
    head = "".join(f"<th>{escape(h)}</th>" for h in ("layer", "kind", *(h for _, h, _ in shown)))
    body = "".join(
        f"<tr><td>{escape(row['layer'])}</td><td>{escape(row['kind'] or '')}</td>"
        + "".join(f"<td>{_cell(row[c], f)}</td>" for c, _, f in shown)
        + "</tr>"
        for row in layers.iter_rows(named=True)
    )
    return (
        '<h2>Layers at the end</h2><div class="card scroll"><table>'
        f"<tr>{head}</tr>{body}</table></div>"
    )


def _cell(value: float | None, is_fraction: bool) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.3g} %" if is_fraction else f"{value:.3g}"


def _curves(store: "Store", run: str) -> str:
    cards = []
    for column, title, scale in CURVES:
        rows = curve(store, run, column)
        parts = rows.partition_by("layer", maintain_order=True)[:_MOST_LINES]
        drawn = [Line(p["layer"][0], p.select("step", "figure").rows()) for p in parts]
        picture = lines(drawn, title=title, log=scale == "log", percent=scale == "fraction")
        if picture:
            cards.append(f'<div class="card"><b>{escape(title)}</b>{picture}{_key(drawn)}</div>')
    return f'<h2>Figures</h2><div class="grid2">{"".join(cards)}</div>' if cards else ""


def _key(drawn: list[Line]) -> str:
    names = "".join(
        f'<span><i style="background:{COLOURS[i % len(COLOURS)]}"></i>{escape(line.name)}</span>'
        for i, line in enumerate(drawn)
    )
    return f'<div class="key">{names}</div>'


def _unknown(verdict: Verdict) -> str:
    rest = [x for x in verdict.lines[1:] if x.startswith(("unknown", "no data", "error", "rule "))]
    if not rest:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in rest)
    return f'<h2>What could not be judged</h2><div class="card"><ul>{items}</ul></div>'
