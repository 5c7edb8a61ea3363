"""One line of the table, measured in a process of its own: time, memory, bytes."""

import contextlib
import gc
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import spikewatch

from ..models.training import Built, Step, Training
from . import memory
from .host_syncs import Syncs, count_syncs
from .row import Row
from .turns import WARM_STEPS, Plan, Turns, run, timed
from .watchers import DEFAULTS, EVERY_STEP, FLOOR, Watcher, Watching


_N_READS = 51


def measure(training: Training, watcher: Watcher, plan: Plan, device: torch.device) -> Row:
    """Time a bare training and a watched one by turns, and see what memory and disk it takes."""
    torch.set_num_threads(1)
    # The alerts of these trainings are evaluated, as they always are, but not shown.
    logging.getLogger("spikewatch").setLevel(logging.CRITICAL + 1)
    bare, built = training.build(device), training.build(device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(bare.step, WARM_STEPS)
        run(built.step, WARM_STEPS)
        gc.collect()
        before_mib = memory.used_mib()
        if watcher.name in (DEFAULTS, EVERY_STEP):
            _use_once(training, watcher, device, folder / "first")
        watching = watcher.attach(built, folder / "timed")
        try:
            turns = Turns(bare.step, _whole(built, watching), watching, watcher, plan)
            settled = turns.settle()
            growth = turns.grow(before_mib, ours=watcher.name in (DEFAULTS, EVERY_STEP))
            figures = turns.take(n_rounds=max(2, round(plan.n_rounds * watcher.rounds)))
        finally:
            watching.close()
        files = (folder / "timed").rglob(watcher.files)
        written = sum(f.stat().st_size for f in files if f.is_file())
        syncs = None
        if device.type == "cuda" and watcher.name == EVERY_STEP:
            syncs = _syncs(training, device, folder / "profiled")
    return Row(
        training=training.name,
        watcher=watcher.name,
        costs=figures,
        growth=growth,
        read_ms=_one_read_ms(built) if watcher.name == FLOOR else None,
        written_bytes_per_step=written / max(1, turns.n_watched),
        settled=settled,
        syncs=syncs,
    )


def _whole(built: Built, watching: Watching) -> Step:
    """A watched step: the training's own, and what the tool's user calls after it."""
    step, after = built.step, watching.after_step
    if after is None:
        return step

    def both() -> None:
        step()
        after()

    return both


def _use_once(training: Training, watcher: Watcher, device: torch.device, folder: Path) -> None:
    """A short run that is thrown away: loading libraries is no cost of a step."""
    built = training.build(device)
    watching = watcher.attach(built, folder)
    with watching.running():
        run(built.step, WARM_STEPS)
    watching.close()


def _one_read_ms(built: Built) -> float:
    """Time to read each spike tensor of a step once; as a difference of blocks it is mere noise."""
    outputs: list[torch.Tensor] = []

    def keep(module: object, args: object, output: Any) -> None:
        del module, args
        outputs.append((output[0] if isinstance(output, tuple) else output).detach())

    handles = [m.register_forward_hook(keep) for m in built.neurons]
    built.step()
    for handle in handles:
        handle.remove()

    def read() -> None:
        for spikes in outputs:
            spikes.sum()

    return 1e3 * statistics.median(timed(read, 1).wall_s for _ in range(_N_READS))


def _syncs(training: Training, device: torch.device, folder: Path) -> dict[str, Syncs]:
    """What waits for the GPU in bare steps, in steps between samples, and in observed ones."""
    found = {}
    # Step 0 is always observed; at 1 in a million no other is.
    for kind, every in (("bare", None), ("off-sample", 1_000_000), ("sampled", 1)):
        built = training.build(device)
        with contextlib.ExitStack() as stack:
            if every is not None:
                stack.enter_context(
                    spikewatch.attach(built.net, dir=folder, run=kind, every=every, quiet=True)
                )
            run(built.step, WARM_STEPS)
            time.sleep(1.0)  # the writer has read step 0
            found[kind] = count_syncs(built.step, n_steps=10)
    return found
