"""How a command is added to the parser."""

import argparse
import types
from typing import Any


def add_command(
    commands: Any, function: types.FunctionType, about: str, examples: str, *, name: str = ""
) -> Any:
    """Add a command that is called like its function; heavy imports stay inside of that."""
    parser = commands.add_parser(
        name or function.__name__,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=function)
    return parser
