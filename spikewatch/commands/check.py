"""The verdict: `spikewatch check`."""

import argparse
from pathlib import Path
from typing import Any

from .parsing import add_command
from .targets import known_run, run_and_folder


def add(commands: Any) -> None:
    """Add the command to the parser."""
    examples = (
        "  spikewatch check                      the newest run\n"
        "  spikewatch check night-run --fail-on critical\n"
        "  spikewatch check spikewatch-runs/night-run --rules stricter.toml --json"
    )
    parser = add_command(commands, check, "exit 1 if an alert fired in a run", examples)
    parser.add_argument("run", nargs="?", help="a run's name or folder; by default the newest")
    parser.add_argument(
        "--fail-on",
        choices=["info", "warning", "critical"],
        default="warning",
        help="least severity that counts (default: warning)",
    )
    parser.add_argument("--rules", type=Path, metavar="FILE", help="judge anew by these rules")
    parser.add_argument("--dir", help="the runs folder")
    parser.add_argument("--json", action="store_true", help="the verdict as an object")


def check(args: argparse.Namespace) -> int:
    """Say which alerts fired in a run; exit 1 if one did of the asked severity."""
    from ..alerts.check import check_run
    from ..printing import print_verdict
    from ..store import open_store

    folder, name = run_and_folder(args.run, args.dir)
    with open_store(folder) as store:
        run = known_run(store, name)
        verdict = check_run(store, run, fail_on=args.fail_on, rules=args.rules)
    print_verdict(verdict, as_json=args.json)
    return verdict.exit_code
