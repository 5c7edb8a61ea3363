"""Rules over history: `spikewatch replay`."""

import argparse
from pathlib import Path
from typing import Any

from .parsing import add_command
from .targets import known_run, run_and_folder


def add(commands: Any) -> None:
    """Add the command to the parser."""
    examples = (
        "  spikewatch replay night-run --rules stricter.toml\n"
        "  spikewatch replay --all               every transition, not only what is told"
    )
    parser = add_command(commands, replay, "tell what rules would have said of a run", examples)
    parser.add_argument("run", nargs="?", help="a run's name or folder; by default the newest")
    parser.add_argument("--rules", type=Path, metavar="FILE", help="by default those found here")
    parser.add_argument("--all", action="store_true", help="every transition of every rule")
    parser.add_argument("--json", action="store_true", help="rows of the table alerts, as objects")
    parser.add_argument("--dir", help="the runs folder")


def replay(args: argparse.Namespace) -> int:
    """Say what would have been told when; exit 1 if a warning or worse would have fired."""
    import polars as pl

    from ..alerts.lines import alert_line
    from ..alerts.loading import find_ruleset
    from ..alerts.replay import replay as replayed
    from ..alerts.rule import SEVERITIES
    from ..printing import print_frame, print_json
    from ..store import open_store

    ruleset = find_ruleset(args.rules)
    folder, name = run_and_folder(args.run, args.dir)
    with open_store(folder) as store:
        run = known_run(store, name)
        found = replayed(store, run, ruleset.rules)
    alerts = found.alerts
    told = alerts.filter(
        pl.col("root_rule").is_null(), pl.col("state").is_in(["firing", "resolved"])
    )
    if args.json:
        print_json(alerts if args.all else told)
    elif args.all:
        print_frame(alerts.drop("run", "summary", "likely", "advice"))
    else:
        for row in told.iter_rows(named=True):
            print(f"step {row['step']:>6}  {alert_line(row)}")
        print(f"run {run!r} by {ruleset.origin}: {_count(told)}")
        for note in found.never_judged:
            print(f"note: {note}")
    grave = alerts.filter(pl.col("severity").is_in(SEVERITIES[1:]), state="firing")
    return 1 if grave.height else 0


def _count(told: Any) -> str:
    n = told.filter(state="firing").height
    return f"{n} alert{'s'[: n != 1]} would have been told"
