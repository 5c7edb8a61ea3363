"""What watching costs: `python -m benchmarks.overhead [--quick] [--json FILE]`.

Two identical trainings stand side by side, one bare and one watched. Blocks of steps alternate,
their order flips at each pair, and the ratio of a pair's times cancels what the machine does
meanwhile. The median over pairs is reported for wall time and for the CPU time of the process
(which holds the writer thread's share too). The first line compares bare with bare: that is the
noise.
"""

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import spikewatch

from .models import CASES, Case, Step


Attach = Callable[[nn.Module, Path], Any]
# Goals: at the defaults within 1 % and the null's noise.
GOAL_DEFAULT = 1.01

WATCHED: dict[str, Attach | None] = {
    "none (A/A)": None,
    "spikewatch, defaults": lambda net, folder: spikewatch.attach(net, dir=folder, quiet=True),
    "spikewatch, every step": lambda net, folder: spikewatch.attach(
        net, dir=folder, quiet=True, every=1
    ),
}


def block_time(step: Step, n: int) -> tuple[float, float]:
    """Wall and CPU seconds of `n` steps."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(n):
        step()
    return time.perf_counter() - wall, time.process_time() - cpu


def paired_ratios(
    bare: Step, other: Step, *, n_pairs: int, block_s: float
) -> list[tuple[float, float]]:
    """Ratios other/bare of wall and CPU time, one for each pair of blocks."""
    per_step = min(block_time(bare, 3)[0] / 3 for _ in range(3))
    n = max(3, round(block_s / per_step))
    ratios = []
    for pair in range(n_pairs):
        if pair % 2:
            b, o = block_time(other, n), block_time(bare, n)
        else:
            o, b = block_time(bare, n), block_time(other, n)
        # `b` is the watched block, `o` the bare one.
        ratios.append((b[0] / o[0], b[1] / o[1]))
    return ratios


def measure(case: Case, attach: Attach | None, *, n_pairs: int, block_s: float) -> dict[str, Any]:
    """One line of the table."""
    (_, bare), (net, other) = case.build(), case.build()
    with tempfile.TemporaryDirectory() as folder:
        watch = attach(net, Path(folder)) if attach is not None else None
        # The burst of the first steps is spent before anything is timed.
        block_time(bare, 20), block_time(other, 20)
        warm = time.perf_counter()
        while time.perf_counter() - warm < block_s:
            other()
        first_step = 0 if watch is None else watch.step
        ratios = paired_ratios(bare, other, n_pairs=n_pairs, block_s=block_s)
        written = sum(f.stat().st_size for f in Path(folder).rglob("*.journal"))
        steps = 0 if watch is None else watch.step
        if watch is not None:
            watch.close()
    wall, cpu = zip(*ratios, strict=True)
    return {
        "wall_ratio": statistics.median(wall),
        "wall_quartiles": statistics.quantiles(wall, n=4)[::2],
        "cpu_ratio": statistics.median(cpu),
        "journal_bytes_per_step": written / max(1, steps),
        "steps": steps - first_step,
    }


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and judge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter blocks")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    # The alerts of these trainings on noise are evaluated, as they always are, but not shown.
    logging.getLogger("spikewatch").setLevel(logging.CRITICAL + 1)
    n_pairs, block_s = (10, 0.3) if args.quick else (30, 1.0)
    print(
        f"{'training':24} {'watched by':24} {'wall':>6} {'quartiles':>13} {'cpu':>6} {'B/step':>7}"
    )
    results, missed = [], []
    for case in CASES:
        null_high = 1.0
        for name, attach in WATCHED.items():
            row = measure(case, attach, n_pairs=n_pairs, block_s=block_s)
            low, high = row["wall_quartiles"]
            print(
                f"{case.name:24} {name:24} {row['wall_ratio']:6.3f} {low:6.3f}-{high:5.3f} "
                f"{row['cpu_ratio']:6.3f} {row['journal_bytes_per_step']:7.0f}",
                flush=True,
            )
            results.append({"training": case.name, "watched_by": name} | row)
            if attach is None:
                null_high = high
            elif name.endswith("defaults") and row["wall_ratio"] > null_high + GOAL_DEFAULT - 1:
                missed.append(case.name)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))
    verdict = f"MISSED by {', '.join(missed)}" if missed else "met"
    print(f"goal: defaults within {GOAL_DEFAULT - 1:.0%} of bare/bare's upper quartile: {verdict}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
