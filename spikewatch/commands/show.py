"""The page: `spikewatch show`."""

import argparse
from typing import Any

from .parsing import add_command
from .targets import existing_runs


def add(commands: Any) -> None:
    """Add the command to the parser."""
    examples = "  spikewatch show\n  spikewatch show ~/experiments/spikewatch-runs --port 8600"
    parser = add_command(commands, show, "open the page that shows runs live", examples)
    parser.add_argument("runs", nargs="?", help="the runs folder, or an address DuckDB can ATTACH")
    add_page_options(parser)


def add_page_options(parser: Any) -> None:
    """Add how the page is served."""
    parser.add_argument("--port", type=int, help="by default the first free one from 8501")
    parser.add_argument("--host", default="127.0.0.1", help="by default this machine only")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")


def show(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from ..serving import Page, open_browser

    runs = existing_runs(args.runs)
    with Page(runs, host=args.host, port=args.port) as page:
        print(f"{page.url}  shows {runs}. Ctrl-C ends it.", flush=True)
        if not args.no_browser:
            open_browser(page.url)
        try:
            page.wait()
        except KeyboardInterrupt:
            print()
    return 0
