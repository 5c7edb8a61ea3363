"""Write the README's tables anew from what they describe: the catalogue and the shipped rules."""

import re
import sys
from pathlib import Path

from spikewatch.alerts.loading import load_rules
from spikewatch.metrics import TABLES


README = Path(__file__).parents[1] / "README.md"


def metrics_table() -> str:
    """Every metric: table, name, unit, meaning."""
    rows = ["| table | metric | unit | what it is |", "|---|---|---|---|"]
    rows += [
        f"| `{table.name}` | `{m.name}` | {m.unit} | {_cell(m.meaning)} |"
        for table in TABLES.values()
        for m in table.metrics
    ]
    return "\n".join(rows)


def rules_table() -> str:
    """Every shipped rule: name, severity, condition, summary."""
    rows = ["| rule | severity | fires when | what it says |", "|---|---|---|---|"]
    rows += [
        f"| `{r.name}` | {r.severity} | `{_cell(r.expr)}` | {_cell(r.summary)} |"
        for r in load_rules()
    ]
    return "\n".join(rows)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def filled(readme: str) -> str:
    """The README's text with each marked block written anew."""
    for name, table in (("metrics", metrics_table()), ("rules", rules_table())):
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        readme = block.sub(lambda m, t=table: f"{m[1]}{t}\n{m[2]}", readme)
    return readme


if __name__ == "__main__":
    before = README.read_text("utf-8")
    after = filled(before)
    README.write_text(after, "utf-8")
    sys.stdout.write("README.md is as it was\n" if after == before else "README.md rewritten\n")
