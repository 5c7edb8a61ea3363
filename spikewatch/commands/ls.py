"""The runs: `spikewatch ls`."""

import argparse
from typing import Any

from ..paths import runs_dir
from .parsing import add_command
from .targets import without_rows


def add(commands: Any) -> None:
    """Add the command to the parser."""
    examples = "  spikewatch ls\n  spikewatch ls runs/ --json | jq '.[0].run'"
    parser = add_command(commands, ls, "list runs, their state and how many alerts fire", examples)
    parser.add_argument("runs", nargs="?", help="the runs folder")
    parser.add_argument("--json", action="store_true", help="an array with one object a run")


def ls(args: argparse.Namespace) -> int:
    """List the runs, newest first."""
    from ..printing import print_json, print_runs
    from ..store import open_store

    with open_store(args.runs) as store:
        runs = store.runs()
        empty = without_rows(store, runs["run"].to_list())
    if args.json:
        print_json(runs)
        return 0
    if runs.height:
        print_runs(runs)
    elif not empty:
        print(f"No runs in {args.runs or runs_dir()} yet.")
    for run in empty:
        print(f"Of run {run!r} nothing can be read: killed in its first second, or damaged.")
    return 0
