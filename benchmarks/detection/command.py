"""Whether alerts can be trusted: illnesses planted in real trainings, and their healthy twins.

Each illness is planted as it comes about in practice, in a training that is otherwise that of its
healthy twin: same seed, data and model. Exits with 1 if a goal is missed, 2 on misuse.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .beds import BEDS
from .catalogue import BENCH_SEEDS, ILLNESSES, SHORT, TUNING_SEEDS, choose, not_planted
from .illness import Illness
from .running import Record, train
from .scoring import MISSED, Case, Goal, case_of, goals, healthy_of
from .table import render, render_healthy, render_misses


_SEEDS = 3
_LONG_STEPS, _LONG_EVERY = 3000, 5


def main(argv: Sequence[str] | None = None) -> int:
    """Train, watch, print the table, and judge.

    Returns:
        0; 1 if a goal is missed; 130 on Ctrl-C, with the table of what was measured.
    """
    args = _parse(argv)
    if args.list:
        print(_listing())
        return 0
    cases: list[Case] = []
    twins: list[Record] = []
    interrupted = False
    try:
        _run_all(args.chosen, args.planned_seeds, cases, twins, n_long=args.long)
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted: this is what was measured until then", file=sys.stderr)
    judged = goals(cases, healthy_of(twins))
    _print(cases, twins, judged)
    if args.json:
        args.json.write_text(json.dumps(_as_json(args, cases, twins, judged), indent=2) + "\n")
    if interrupted:
        return 130
    return int(any(goal.state == MISSED for goal in judged))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    add = parser.add_argument
    only = "illnesses, rules or trainings, by name or pattern ('dead-*'); see --list"
    add("--only", nargs="+", action="extend", default=[], metavar="NAME", help=only)
    add("--short", action="store_true", help="a handful of illnesses and one seed: seconds")
    add("--seeds", type=int, metavar="N", help=f"trainings of each (default: {_SEEDS})")
    add("--json", type=Path, metavar="FILE", help="write the figures to this file as well")
    tuning = "take the seeds that thresholds are tuned on; report none of these figures"
    add("--tuning", action="store_true", help=tuning)
    long = f"healthy trainings of {_LONG_STEPS} steps as well, with N seeds each"
    add("--long", type=int, default=0, metavar="N", help=long)
    add("--list", action="store_true", help="tell what there is to plant, and end")
    args = parser.parse_args(argv)
    known = TUNING_SEEDS if args.tuning else BENCH_SEEDS
    n_seeds = args.seeds if args.seeds is not None else 1 if args.short else _SEEDS
    for name, n, least in (("seeds", n_seeds, 1), ("long", args.long, 0)):
        if not least <= n <= len(known):
            parser.error(f"--{name} was {n}; give {least} to {len(known)}")
    if args.json is not None and not args.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {args.json.parent}; make it first")
    try:
        args.chosen = choose(args.only or (SHORT if args.short else ()))
    except ValueError as error:
        parser.error(f"--only: {error}")
    args.planned_seeds = known[:n_seeds]
    return args


def _run_all(
    chosen: Sequence[Illness],
    seeds: Sequence[int],
    cases: list[Case],
    twins: list[Record],
    *,
    n_long: int,
) -> None:
    """Train after train, into `cases` and `twins`."""
    lengths: dict[str, int] = {}
    for illness in chosen:
        lengths[illness.bed] = max(lengths.get(illness.bed, 0), illness.n_steps)
    n_all = len(seeds) * (len(chosen) + len(lengths)) + n_long * len(lengths)
    # What is told of alerts goes to sys.stderr, which is put aside while a training runs.
    console = Console(file=sys.__stderr__)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=n_all)

        def tell(label: str) -> None:
            progress.update(task, advance=1, description=f"{label:36}")

        for bed, n_steps in lengths.items():
            for seed in seeds:
                twins.append(train(bed, seed, n_steps))
                tell(f"{bed}, healthy")
            for seed in seeds[:n_long]:
                twins.append(train(bed, seed, _LONG_STEPS, every=_LONG_EVERY))
                tell(f"{bed}, healthy and long")
        for illness in chosen:
            for seed in seeds:
                record = train(illness.bed, seed, illness.n_steps, illness=illness)
                cases.append(case_of(illness, record))
                tell(illness.name)


def _print(cases: Sequence[Case], twins: Sequence[Record], judged: Sequence[Goal]) -> None:
    print(render(cases))
    print(render_healthy(healthy_of(twins)))
    if misses := render_misses(cases, twins):
        print(misses)
    for goal in judged:
        print(goal)
    missed = sum(goal.state == MISSED for goal in judged)
    print(f"detection: {missed} of {len(judged)} goals missed")


def _as_json(
    args: argparse.Namespace,
    cases: Sequence[Case],
    twins: Sequence[Record],
    judged: Sequence[Goal],
) -> dict[str, object]:
    return {
        "seeds": list(args.planned_seeds),
        "tuning": args.tuning,
        "goals": [dataclasses.asdict(g) for g in judged],
        "healthy": dataclasses.asdict(healthy_of(twins)),
        "cases": [dataclasses.asdict(c) for c in cases],
        "twins": [dataclasses.asdict(r) for r in twins],
        "not_planted": not_planted(),
    }


def _listing() -> str:
    lines = ["trainings:", *(f"  {name}" for name in BEDS), "illnesses:"]
    lines += [f"  {i.name:36} {i.rule} in {i.bed}: {i.story}" for i in ILLNESSES]
    return "\n".join(lines)
