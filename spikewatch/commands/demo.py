"""A training to look at: `spikewatch demo`."""

import argparse
from typing import Any

from .parsing import add_command
from .show import add_page_options


def add(commands: Any) -> None:
    """Add the command to the parser."""
    examples = (
        "  spikewatch demo                       a healthy network, with the page\n"
        "  spikewatch demo --ill dead-neurons    a sick one\n"
        "  spikewatch demo --model spike-gpt     another network\n"
        "  spikewatch demo --headless --ill nan  no page; exit 1 because alerts fire"
    )
    parser = add_command(commands, demo, "train a small network and watch it", examples)
    from ..demo import add_options

    add_options(parser)
    add_page_options(parser)


def demo(args: argparse.Namespace) -> int:
    """Train a small network, healthy or ill."""
    from ..demo import run

    return run(args)
