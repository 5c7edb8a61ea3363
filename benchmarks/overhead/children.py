"""Each line of the table in a process of its own: hooks, threads and memory do not spill over."""

import contextlib
import multiprocessing
import os
import tempfile
import traceback
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path

from .row import NOT_INSTALLED, Row


# Imported once and then forked, where the system can: that saves some seconds a line.
_PRELOAD = ("torch", "spikewatch", "snntorch", "norse.torch", "sinabs.layers", "sklearn.datasets")
_PRELOAD_SPIKINGJELLY = ("spikingjelly.activation_based.neuron",)
_TAIL_CHARS = 300


def run_row(training: str, watcher: str, plan: object, device: str) -> Row:
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


def _context() -> "multiprocessing.context.BaseContext":
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    wanted = (*_PRELOAD, *_PRELOAD_SPIKINGJELLY)
    context.set_forkserver_preload([x for x in wanted if find_spec(x.partition(".")[0])])
    return context


def _measure(
    training: str, watcher: str, plan: object, device: str, log: str, answer: Connection
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
