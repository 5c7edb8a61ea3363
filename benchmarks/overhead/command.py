"""What watching costs: two identical trainings, one bare and one watched, timed by turns.

Short blocks of steps alternate, their order flips at each pair, and the ratio of a pair's times
cancels what the machine does meanwhile. "nothing (A/A)" compares bare with bare: that is the noise.
Exits with 1 if a goal is missed, 2 on misuse.
"""

import argparse
import dataclasses
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..models import TRAININGS, Training
from .children import not_installed, preload, run_row
from .choice import ALL_WATCHERS, choose
from .goals import MISSED, Verdict, verdicts
from .row import Row
from .table import render
from .turns import QUICK, Plan
from .watchers import Watcher


_MAX_ROUNDS = 1000


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and judge.

    Returns:
        0; 1 if a goal is missed; 130 on Ctrl-C, with the table of what was measured.
    """
    args = _parse(argv)
    if args.list:
        print(_listing())
        return 0
    rows: list[Row] = []
    interrupted = False
    try:
        _measure_all(args.chosen, args.plan, args.device, rows)
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted: this is what was measured until then", file=sys.stderr)
    if rows:
        print(render(rows))
    goals = {t.name: t.every_step_goal for t in TRAININGS if t.every_step_goal is not None}
    judged = verdicts(rows, every_step_goals=goals)
    for verdict in judged:
        print(verdict)
    failed = [r for r in rows if r.status.startswith("failed")]
    print(_summary(judged, failed))
    if args.json:
        args.json.write_text(json.dumps(_as_json(args, rows, judged), indent=2) + "\n")
    if interrupted:
        return 130
    return int(any(v.state == MISSED for v in judged) or bool(failed))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer and shorter blocks: minutes, more noise")
    add("--json", type=Path, metavar="FILE", help="write the figures to this file as well")
    only = "trainings and watchers to measure, by name or pattern ('mlp-*'); see --list"
    add("--only", nargs="+", action="extend", default=[], metavar="NAME", help=only)
    add("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    add("--rounds", type=int, metavar="N", help="rounds, where most are needed")
    add("--round", type=float, metavar="S", help="length of a round in seconds")
    add("--list", action="store_true", help="tell what there is to measure, and end")
    args = parser.parse_args(argv)
    plan = QUICK if args.quick else Plan()
    if args.rounds is not None:
        if not 2 <= args.rounds <= _MAX_ROUNDS:
            parser.error(f"--rounds was {args.rounds}; give 2 to {_MAX_ROUNDS}")
        plan = dataclasses.replace(plan, n_rounds=args.rounds)
    if args.round is not None:
        if not 0.1 <= args.round <= 60:
            parser.error(f"--round was {args.round:g}; give 0.1 to 60 seconds")
        plan = dataclasses.replace(plan, round_s=args.round)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device here; leave --device out")
    if args.json is not None and not args.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {args.json.parent}; make it first")
    try:
        args.chosen = choose(args.only)
    except ValueError as error:
        parser.error(f"--only: {error}")
    args.plan = plan
    return args


def _measure_all(
    chosen: Sequence[tuple[Training, Watcher]], plan: Plan, device: str, rows: list[Row]
) -> None:
    """Measure line after line, into `rows`."""
    preload({training.library for training, _ in chosen})
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=len(chosen))
        for training, watcher in chosen:
            label = f"{training.name}, {watcher.name}"
            progress.update(task, description=f"{label:32}")
            missing = [x for x in (training.library, watcher.needs) if not _is_here(x)]
            if missing:
                rows.append(not_installed(training.name, watcher.name))
            else:
                rows.append(run_row(training.name, watcher.name, plan, device))
            if not console.is_terminal:
                print(f"{len(rows)}/{len(chosen)} {label}: {rows[-1].status}", file=sys.stderr)
            progress.advance(task)


def _is_here(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package.partition(".")[0]) is not None


def _summary(judged: Sequence[Verdict], failed: Sequence[Row]) -> str:
    missed = [v.goal for v in judged if v.state == MISSED]
    line = f"overhead: {len(missed)} of {len(judged)} goals missed"
    return f"{line}, {len(failed)} lines failed" if failed else line


def _as_json(
    args: argparse.Namespace, rows: Sequence[Row], judged: Sequence[Verdict]
) -> dict[str, object]:
    return {
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "device": args.device,
        },
        "plan": dataclasses.asdict(args.plan),
        "rows": [dataclasses.asdict(r) for r in rows],
        "goals": [dataclasses.asdict(v) for v in judged],
    }


def _listing() -> str:
    lines = ["trainings:"]
    lines += [f"  {t.name:16} {t.library}: {t.about}" for t in TRAININGS]
    lines.append("watchers:")
    for w in ALL_WATCHERS:
        here = "" if w.installed else f" (not installed: {w.needs})"
        lines.append(f"  {w.name:16} {w.about}{here}")
    return "\n".join(lines)
