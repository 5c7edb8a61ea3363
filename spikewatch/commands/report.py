"""A run as one file: `spikewatch report`."""

import argparse
from pathlib import Path
from typing import Any

from .parsing import add_command
from .targets import known_run, run_and_folder


def add(commands: Any) -> None:
    """Add the command to the parser."""
    examples = (
        "  spikewatch report                     the newest run, as RUN.html\n"
        "  spikewatch report night-run -o night.html"
    )
    parser = add_command(
        commands, report, "write a run as one HTML file, to keep or to mail", examples
    )
    parser.add_argument("run", nargs="?", help="a run's name or folder; by default the newest")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: RUN.html")
    parser.add_argument("--rules", type=Path, metavar="FILE", help="judge anew by these rules")
    parser.add_argument("--dir", help="the runs folder")


def report(args: argparse.Namespace) -> int:
    """Write the report, and say where it is."""
    from ..errors import StoreError
    from ..reporting.page import page
    from ..store import open_store

    folder, name = run_and_folder(args.run, args.dir)
    with open_store(folder) as store:
        run = known_run(store, name)
        text = page(store, run, rules=args.rules)
    path = args.output or Path(f"{run.replace('/', '-')}.html")
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise StoreError(
            f"Cannot write {str(path)!r}: {error.strerror}. Name another file."
        ) from error
    print(f"{path}  tells of run {run!r} in {len(text) / 1024:.0f} kB; it needs nothing else.")
    return 0
