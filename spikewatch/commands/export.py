"""Other programs: `spikewatch export`."""

import argparse
from pathlib import Path
from typing import Any

from .parsing import add_command
from .targets import known_run, run_and_folder


def add(commands: Any) -> None:
    """Add the command to the parser."""
    examples = "  spikewatch export night-run --tensorboard tb/"
    parser = add_command(commands, export, "write a run for another program", examples)
    parser.add_argument("run", help="a run's name or folder")
    parser.add_argument("--tensorboard", type=Path, metavar="DIR", required=True)
    parser.add_argument("--dir", help="the runs folder")


def export(args: argparse.Namespace) -> int:
    """Write a run in another program's format."""
    from ..export import export_tensorboard
    from ..store import open_store

    folder, name = run_and_folder(args.run, args.dir)
    with open_store(folder) as store:
        run = known_run(store, name)
        n = export_tensorboard(store, run, args.tensorboard)
    print(f"{n} points of run {run!r} written; look at them with:")
    print(f"  tensorboard --logdir {args.tensorboard}")
    return 0
