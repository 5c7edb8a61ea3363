"""The command `spikewatch`: one small function per command. Heavy imports stay inside them."""

import argparse
import difflib
import os
import signal
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import SpikewatchError, StoreError
from .paths import DATABASE, runs_dir


if TYPE_CHECKING:
    from .store import Store

_ABOUT = "See what dies in a spiking or ternary network while it trains."
_EXAMPLES = """\
examples:
  spikewatch demo --ill dead-neurons      train a sick network and watch it
  spikewatch show                         open the page on ./spikewatch-runs
  spikewatch ls                           the runs and their health
  spikewatch check && ./deploy.sh         exit 1 if an alert fired in the newest run
  spikewatch query "SELECT layer, step, mfr FROM spikes ORDER BY step DESC LIMIT 10"

exit codes: 0 fine, 1 an alert fired, 2 misuse
Runs are looked for in ./spikewatch-runs, or where $SPIKEWATCH_DIR says."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    if argv is None:  # as a program of its own: end in good order, and the page with it
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except SpikewatchError as error:
        print(f"spikewatch: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Who read our output has gone (`| head`); the interpreter must not flush into it either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(f"spikewatch: {error}", file=sys.stderr)
        return 2
    return code


def _run(argv: list[str]) -> int:
    parser, names = _parser()
    if not argv:
        parser.print_help()
        return 2
    if not argv[0].startswith("-") and argv[0] not in names:
        close = difflib.get_close_matches(argv[0], names, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(names)}."
        raise SpikewatchError(f"There is no command {argv[0]!r}. {hint}")
    args = parser.parse_args(argv)
    command: Callable[[argparse.Namespace], int] = args.command
    return command(args)


# ------------------------------------------------------------------------------------- commands


def show(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from .serving import Page, open_browser

    runs = _existing(args.runs)
    with Page(runs, host=args.host, port=args.port) as page:
        print(f"{page.url}  shows {runs}. Ctrl-C ends it.", flush=True)
        if not args.no_browser:
            open_browser(page.url)
        try:
            page.wait()
        except KeyboardInterrupt:
            print()
    return 0


def ls(args: argparse.Namespace) -> int:
    """List the runs, newest first."""
    from .printing import print_json, print_runs
    from .store import open_store

    with open_store(args.runs) as store:
        runs = store.runs()
    if args.json:
        print_json(runs)
    elif runs.is_empty():
        print(f"No runs in {args.runs or runs_dir()} yet.")
    else:
        print_runs(runs)
    return 0


def query(args: argparse.Namespace) -> int:
    """Run one SQL statement; without one, say what can be asked."""
    from .printing import print_csv, print_frame, print_json, print_vocabulary, write_parquet

    if args.sql is None:
        print_vocabulary()
        return 0
    from .store import open_store

    sql = sys.stdin.read() if args.sql == "-" else args.sql
    with open_store(args.dir) as store:
        frame = store.sql(sql)
    if args.parquet is not None:
        write_parquet(frame, args.parquet)
    elif args.json:
        print_json(frame)
    elif args.csv:
        print_csv(frame)
    else:
        print_frame(frame)
    return 0


def check(args: argparse.Namespace) -> int:
    """Say which alerts fired in a run; exit 1 if one did of the asked severity."""
    from .alerts.check import check_run
    from .printing import print_verdict
    from .store import open_store

    folder, name = _run_and_folder(args.run, args.dir)
    with open_store(folder) as store:
        run = _known_run(store, name)
        verdict = check_run(store, run, fail_on=args.fail_on, rules=args.rules)
    print_verdict(verdict, as_json=args.json)
    return verdict.exit_code


def export(args: argparse.Namespace) -> int:
    """Write a run in another program's format."""
    from .export import export_tensorboard
    from .store import open_store

    folder, name = _run_and_folder(args.run, args.dir)
    with open_store(folder) as store:
        run = _known_run(store, name)
        n = export_tensorboard(store, run, args.tensorboard)
    print(f"{n} points of run {run!r} written; look at them with:")
    print(f"  tensorboard --logdir {args.tensorboard}")
    return 0


def demo(args: argparse.Namespace) -> int:
    """Train a small network, healthy or ill."""
    from .demo import run

    return run(args)


# -------------------------------------------------------------------------------- the arguments


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    parser = argparse.ArgumentParser(
        "spikewatch",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"spikewatch {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_show, _add_ls, _add_query, _add_check, _add_demo, _add_export):
        add(commands)
    return parser, list(commands.choices)


def _add(commands: Any, function: types.FunctionType, about: str, examples: str) -> Any:
    parser = commands.add_parser(
        function.__name__,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=function)
    return parser


def _add_show(commands: Any) -> None:
    examples = "  spikewatch show\n  spikewatch show ~/experiments/spikewatch-runs --port 8600"
    parser = _add(commands, show, "open the page that shows runs live", examples)
    parser.add_argument("runs", nargs="?", help="the runs folder, or an address DuckDB can ATTACH")
    _add_page_options(parser)


def _add_page_options(parser: Any) -> None:
    parser.add_argument("--port", type=int, help="by default the first free one from 8501")
    parser.add_argument("--host", default="127.0.0.1", help="by default this machine only")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")


def _add_ls(commands: Any) -> None:
    examples = "  spikewatch ls\n  spikewatch ls runs/ --json | jq '.[0].run'"
    parser = _add(commands, ls, "list runs, their state and how many alerts fire", examples)
    parser.add_argument("runs", nargs="?", help="the runs folder")
    parser.add_argument("--json", action="store_true", help="an array with one object a run")


def _add_query(commands: Any) -> None:
    examples = (
        "  spikewatch query                      what can be asked: tables, columns, meanings\n"
        '  spikewatch query "SELECT layer, max(dead_frac) FROM spikes GROUP BY layer"\n'
        '  spikewatch query "FROM wide WHERE step > 1000" --parquet late.parquet\n'
        "  spikewatch query - --csv < question.sql"
    )
    parser = _add(commands, query, "ask the runs in SQL, also while they train", examples)
    parser.add_argument("sql", nargs="?", help="one statement that reads; - takes it from stdin")
    parser.add_argument("--dir", help="the runs folder")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="an array with one object a row")
    how.add_argument("--csv", action="store_true", help="comma-separated, with a header")
    how.add_argument("--parquet", type=Path, metavar="FILE", help="into a Parquet file")


def _add_check(commands: Any) -> None:
    examples = (
        "  spikewatch check                      the newest run\n"
        "  spikewatch check night-run --fail-on critical\n"
        "  spikewatch check spikewatch-runs/night-run --rules stricter.toml --json"
    )
    parser = _add(commands, check, "exit 1 if an alert fired in a run", examples)
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


def _add_demo(commands: Any) -> None:
    examples = (
        "  spikewatch demo                       a healthy network, with the page\n"
        "  spikewatch demo --ill dead-neurons    a sick one\n"
        "  spikewatch demo --model spike-gpt     another network\n"
        "  spikewatch demo --headless --ill nan  no page; exit 1 because alerts fire"
    )
    parser = _add(commands, demo, "train a small network and watch it", examples)
    from .demo import add_options

    add_options(parser)
    _add_page_options(parser)


def _add_export(commands: Any) -> None:
    examples = "  spikewatch export night-run --tensorboard tb/"
    parser = _add(commands, export, "write a run for another program", examples)
    parser.add_argument("run", help="a run's name or folder")
    parser.add_argument("--tensorboard", type=Path, metavar="DIR", required=True)
    parser.add_argument("--dir", help="the runs folder")


def _version() -> str:
    from importlib.metadata import version

    return version("spikewatch")


# ------------------------------------------------------------------------------------- run names


def _existing(runs: str | None) -> str:
    """The runs folder or address as given; a run's own folder means the one it lies in."""
    if runs is not None and ":" in runs and not Path(runs).exists():
        return runs
    path = runs_dir(runs)
    if any(path.glob("rank-*.journal")):
        path = path.parent
    if not path.is_dir() and not path.is_file():
        raise StoreError(
            f"There is no runs folder at {str(path)!r}. Train with `spikewatch.attach(model)` "
            "first, try `spikewatch demo`, or name the folder."
        )
    return str(path)


def _run_and_folder(run: str | None, folder: str | None) -> tuple[str | None, str | None]:
    """Take a run's folder apart: (runs folder, run name). A name, or None, stays as it is."""
    if run is not None:
        path = Path(run).expanduser()
        if any(path.glob("rank-*.journal")):
            return str(path.resolve().parent), path.resolve().name
        if folder is None and (any(path.glob("*/rank-*.journal")) or (path / DATABASE).exists()):
            return run, None
    return folder, run


def _known_run(store: "Store", name: str | None) -> str:
    runs = store.runs()["run"].to_list()
    if not runs:
        raise StoreError(
            f"There are no runs in {store.folder or 'this store'} yet. Train with "
            "`spikewatch.attach(model)`, or try `spikewatch demo`."
        )
    if name is None:
        return runs[0]
    if name not in runs:
        close = difflib.get_close_matches(name, runs, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"The newest: {', '.join(runs[:5])}."
        raise StoreError(f"There is no run {name!r} in {store.folder or 'this store'}. {hint}")
    return name
