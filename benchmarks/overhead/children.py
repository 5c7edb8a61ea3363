"""Each line of the table in a process of its own: hooks, threads and memory do not spill over."""

import contextlib
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Iterable
from importlib.util import find_spec
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Literal

from .row import NOT_INSTALLED, Row
from .turns import Plan


# Imported once and then forked, where the system can: that saves some seconds a line.
# (torch's optimizers import its compiler when the first of them is made.)
_PRELOAD = ("torch", "torch._dynamo", "spikewatch", "sklearn.datasets")
_PRELOAD_OF = {
    "norse": "norse.torch",
    "sinabs": "sinabs.layers",
    "snntorch": "snntorch",
    "spikingjelly": "spikingjelly.activation_based.neuron",
}
_FORKSERVER: Literal["forkserver"] = "forkserver"
_TAIL_CHARS = 300


def preload(libraries: Iterable[str]) -> None:
    """Say which libraries the processes to come will need."""
    if _FORKSERVER in multiprocessing.get_all_start_methods():
        some = [_PRELOAD_OF[x] for x in libraries if find_spec(x)]
        multiprocessing.get_context(_FORKSERVER).set_forkserver_preload([*_PRELOAD, *some])


def run_row(training: str, watcher: str, plan: Plan, device: str) -> Row:
    """Measure one line; whatever happens to the process, a line comes back.

    Args:
        training: Name of the training.
        watcher: Name of the watcher.
        plan: A `measure.Plan`.
        device: Name of the device.
    """
    context = _context()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "output"
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(
            target=_measure, args=(training, watcher, plan, device, str(log), theirs), daemon=False
        )
        child.start()
        theirs.close()
        try:
            answer = ours.recv()
        except EOFError:
            answer = None
        finally:
            with contextlib.suppress(KeyboardInterrupt):
                child.join()
            ours.close()
        if isinstance(answer, Row):
            return answer
        said = answer or _tail(log) or "it said nothing"
        status = f"failed (exit code {child.exitcode}): {said}"
        return Row(training=training, watcher=watcher, status=status)


def not_installed(training: str, watcher: str) -> Row:
    """The line of a tool that is not here."""
    return Row(training=training, watcher=watcher, status=NOT_INSTALLED)


def _context() -> SpawnContext | ForkServerContext:
    if _FORKSERVER in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context(_FORKSERVER)
    return multiprocessing.get_context("spawn")


def _measure(
    training: str, watcher: str, plan: Plan, device: str, log: str, answer: Connection
) -> None:
    """Runs in the child: measure, and send a `Row` or what went wrong."""
    # What tools print would tear the table apart.
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        import torch

        from .choice import training_named, watcher_named
        from .measure import measure

        row = measure(training_named(training), watcher_named(watcher), plan, torch.device(device))
        answer.send(row)
    except Exception:  # noqa: BLE001 - a rival that fails is a line of the table
        answer.send(traceback.format_exc().strip().splitlines()[-1])
    finally:
        answer.close()


def _tail(log: Path) -> str:
    if not log.exists():
        return ""
    return " ".join(log.read_text(errors="replace").split())[-_TAIL_CHARS:]
