"""Write what is generated of the documentation: from the catalogue and from the shipped rules.

`metrics.md` and `rules.md` are written whole; in the README, what stands between two marks.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from spikewatch.alerts.loading import load_rules
from spikewatch.alerts.rule import Rule
from spikewatch.metrics import TABLES
from spikewatch.metrics.declare import Table


HERE = Path(__file__).parent
README = HERE.parent / "README.md"
_BAD = {"high": "high", "low": "low", "outside": "either way", "none": ""}
_WITHOUT_RULE = {
    "rates that are not log-normal": "no training aims at it; behind BatchNorm neurons fire alike.",
    "less than 0.1 bit a slot": "that is a rate below 1 %, or near 1; `low-rate` and `high-rate`.",
    "neurons that never fire on the test set": "in training they are dead as well.",
    "first spikes that come later, or not at all": "a training moves them by more than the usual "
    "20 %, and of ten outputs nine are silent where the tenth is right.",
    "a support of more than 90 %": "the default surrogates of snnTorch and SpikingJelly have it.",
    "a decay above 0.999": "integrate-and-fire neurons have no leak.",
    "updates of more than 5 % of Δ": "what comes of them is told: `restless-weights`.",
    "a jump of the annealing": "schedules in stages jump on purpose.",
    "few ternary weights, inputs that are no spikes, more energy than without spikes": "so it is "
    "built; see `model_ternary_frac`, `mac_frac`, `energy_ratio_compute`.",
}
_SEVERITIES = {"critical": "learning is lost", "warning": "it suffers", "info": "look at it"}


def metrics_page() -> str:
    """`metrics.md`: every metric with its unit, meaning and source, and every counter."""
    head = (
        "# What is measured\n\n"
        "A row for each run, rank, phase, observed step and layer. *Counters* are taken while the "
        "training\nruns; *metrics* are computed from them. Counters of windows and ranks merge by "
        "the rule given, and\nmetrics are then computed anew, never averaged. Without evidence a "
        "metric is NULL, never 0.\nA name that ends in `_frac` is a share, from 0 to 1.\n"
    )
    return "\n".join([head, *map(_table_section, TABLES.values())])


def _table_section(table: Table) -> str:
    metrics = (
        f"| `{m.name}` | {m.unit} | {_BAD[m.bad]} | {_cell(m.meaning)} | {_cell(m.source)} |"
        for m in table.metrics
    )
    counters = (f"| `{c.name}` | {c.merge} | {_cell(c.meaning)} |" for c in table.counters)
    return "\n".join(
        [
            f"## `{table.name}`: {table.about[0].lower()}{table.about[1:]}\n",
            *_rows(("metric", "unit", "unhealthy", "what it is", "source"), metrics),
            "",
            *_rows(("counter", "merges by", "what it counts"), counters),
            "",
        ]
    )


def rules_page() -> str:
    """`rules.md`: every shipped rule, with all that it says."""
    head = (
        "# The shipped rules\n\n"
        "`spikewatch rules explain NAME` says the same of one on the terminal, with the metrics it "
        "looks at.\nAny can be changed or muted, see [Alert rules](../README.md#alert-rules).\n"
    )
    without = [
        "## Signs without a rule\n",
        "Often called unhealthy, and in [metrics.md](metrics.md); there is no rule, because\n",
        *(f"- **{sign}**: {why}" for sign, why in _WITHOUT_RULE.items()),
        "",
    ]
    return "\n".join([head, *map(_rule_section, load_rules()), *without])


def _rule_section(rule: Rule) -> str:
    what = {
        "likely": rule.likely,
        "try": rule.advice,
        "fires when": f"`{' '.join(rule.expr.split())}`",
        "ends when": f"`{' '.join(rule.clear.split())}`" if rule.clear else "",
        "source": rule.source,
    }
    lines = [f"- **{name}**: {_cell(text)}" for name, text in what.items() if text]
    return "\n".join([f"## {rule.name} · {rule.severity}\n", f"{rule.summary}.\n", *lines, ""])


def metrics_summary() -> str:
    """For the README: each table with the names of its metrics."""
    rows = (
        f"| `{t.name}` | {_cell(t.about)} | {', '.join(f'`{m.name}`' for m in t.metrics)} |"
        for t in TABLES.values()
    )
    return "\n".join(_rows(("table", "of", "metrics"), rows))


def rules_summary() -> str:
    """For the README: the names of the rules by severity."""
    rows = []
    for severity, meaning in _SEVERITIES.items():
        names = ", ".join(f"`{r.name}`" for r in load_rules() if r.severity == severity)
        rows.append(f"| {severity}: {meaning} | {names} |")
    return "\n".join(_rows(("severity", "rules"), rows))


def _rows(head: tuple[str, ...], rows: Iterable[str]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *rows]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def filled(readme: str) -> str:
    """The README's text with each marked block written anew."""
    for name, table in (("metrics", metrics_summary()), ("rules", rules_summary())):
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        readme = block.sub(lambda m, t=table: f"{m[1]}{t}\n{m[2]}", readme)
    return readme


def generated() -> dict[Path, str]:
    """What is generated, by file."""
    return {
        README: filled(README.read_text("utf-8")),
        HERE / "metrics.md": metrics_page(),
        HERE / "rules.md": rules_page(),
    }


if __name__ == "__main__":
    for file, text in generated().items():
        is_new = not file.exists() or file.read_text("utf-8") != text
        file.write_text(text, "utf-8")
        sys.stdout.write(f"{file.name} {'rewritten' if is_new else 'is as it was'}\n")
