"""A run on the terminal, while it trains: `spikewatch tail`."""

import argparse
from typing import Any

from .parsing import add_command
from .targets import known_run, run_and_folder


_EVERY_S = 1.0


def add(commands: Any) -> None:
    """Add the command to the parser."""
    examples = (
        "  spikewatch tail                       the newest run, until it ends\n"
        "  spikewatch tail night-run --once      what there is now, and exit"
    )
    parser = add_command(
        commands, tail, "watch a run on the terminal; exits as check does", examples
    )
    parser.add_argument("run", nargs="?", help="a run's name or folder; by default the newest")
    parser.add_argument("--once", action="store_true", help="print it once, and exit")
    parser.add_argument("--dir", help="the runs folder")


def tail(args: argparse.Namespace) -> int:
    """Show the layers and alerts of a run until it ends or Ctrl-C; exit 1 if a warning fired."""
    from ..alerts.check import check_run
    from ..errors import MissingExtraError
    from ..store import open_store

    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        raise MissingExtraError("tail", "`spikewatch tail`") from None
    from ..reporting.terminal import picture

    folder, name = run_and_folder(args.run, args.dir)
    with open_store(folder) as store:
        run = known_run(store, name)
        console = Console()
        if args.once or not console.is_terminal:
            console.print(picture(store, run))
        else:
            with Live(picture(store, run), console=console, auto_refresh=False) as live:
                _follow(store, run, live, picture)
        return check_run(store, run).exit_code


def _follow(store: Any, run: str, live: Any, picture: Any) -> None:
    """Draw anew each second until the run is over; Ctrl-C ends the looking, not the run."""
    import time

    try:
        while True:
            store.refresh()
            live.update(picture(store, run), refresh=True)
            if store.runs().filter(run=run)["state"].item() != "running":
                return
            time.sleep(_EVERY_S)
    except KeyboardInterrupt:
        return
