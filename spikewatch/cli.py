"""The command `spikewatch`: finds the command that is asked for, and tells errors in a line."""

import argparse
import difflib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from .commands import check, demo, export, ls, query, replay, report, rules, show, tail
from .errors import SpikewatchError


_COMMANDS = (show, ls, query, check, tail, report, rules, replay, demo, export)
_ABOUT = "See what dies in a spiking or ternary network while it trains."
_EXAMPLES = """\
examples:
  spikewatch demo --ill dead-neurons      train a sick network and watch it
  spikewatch show                         open the page on ./spikewatch-runs
  spikewatch ls                           the runs and their health
  spikewatch check && ./deploy.sh         exit 1 if an alert fired in the newest run
  spikewatch tail                         watch the newest run on the terminal
  spikewatch query "SELECT layer, step, mfr FROM spikes ORDER BY step DESC LIMIT 10"

exit codes: 0 fine, 1 an alert fired, 2 misuse
Runs are looked for in ./spikewatch-runs, or where $SPIKEWATCH_DIR says."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    if argv is None:  # as a program of its own: end in good order, and the page with it
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        _print_what_can_be_printed()
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        if sys.stdout is not None:  # `>&-`
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
    except Exception:  # noqa: BLE001 - a fault of ours is no alert: 1 would say so
        traceback.print_exc()
        return 2
    return code


def _print_what_can_be_printed() -> None:
    """Where the terminal or the file knows no ∂ and no box, a ? stands for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


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


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    parser = argparse.ArgumentParser(
        "spikewatch",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"spikewatch {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in _COMMANDS:
        module.add(commands)
    return parser, list(commands.choices)


def _version() -> str:
    from importlib.metadata import version

    return version("spikewatch")
