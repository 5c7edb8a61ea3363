"""SQL: `spikewatch query`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from .parsing import add_command


def add(commands: Any) -> None:
    """Add the command to the parser."""
    examples = (
        "  spikewatch query                      what can be asked: tables, columns, meanings\n"
        '  spikewatch query "SELECT layer, max(dead_frac) FROM spikes GROUP BY layer"\n'
        '  spikewatch query "FROM wide WHERE step > 1000" --parquet late.parquet\n'
        "  spikewatch query - --csv < question.sql"
    )
    parser = add_command(commands, query, "ask the runs in SQL, also while they train", examples)
    parser.add_argument("sql", nargs="?", help="one statement that reads; - takes it from stdin")
    parser.add_argument("--dir", help="the runs folder")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="an array with one object a row")
    how.add_argument("--csv", action="store_true", help="comma-separated, with a header")
    how.add_argument("--parquet", type=Path, metavar="FILE", help="into a Parquet file")


def query(args: argparse.Namespace) -> int:
    """Run one SQL statement; without one, say what can be asked."""
    from ..printing import print_csv, print_frame, print_json, print_vocabulary, write_parquet

    if args.sql is None:
        print_vocabulary()
        return 0
    from ..store import open_store

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
