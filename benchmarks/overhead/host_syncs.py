"""Proof by profiler: what makes the training thread wait for the GPU.

Counted on the events of a Chrome trace, which torch.profiler writes in the same form since long.
The training thread is the one on which the marked range ran.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


MARK = "overhead: training"
# CUDA runtime and driver calls that return only once the GPU has got so far.
_WAITS = frozenset(
    {
        "cudaDeviceSynchronize",
        "cudaStreamSynchronize",
        "cudaEventSynchronize",
        "cudaMemcpy",
        "cuCtxSynchronize",
        "cuStreamSynchronize",
        "cuEventSynchronize",
    }
)


@dataclass(frozen=True)
class Syncs:
    """What waited for the GPU, or copied from it, in some steps.

    Attributes:
        training_waits: Waits in the training thread, or in autograd's, for which that one waits.
        training_copies: Copies from device to host that these threads asked for.
        other_waits: Waits in other threads, such as a writer's.
        n_steps: Steps.
    """

    training_waits: int
    training_copies: int
    other_waits: int
    n_steps: int


def count_syncs(step: Callable[[], None], *, n_steps: int) -> Syncs:
    """Profile some steps of a training."""
    with torch.profiler.profile() as profiler:
        with torch.profiler.record_function(MARK):
            for _ in range(n_steps):
                step()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # outside of the mark, so not counted
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        trace = json.loads(path.read_text())
    return syncs_in(trace["traceEvents"], n_steps=n_steps)


def syncs_in(events: Iterable[Mapping[str, Any]], *, n_steps: int) -> Syncs:
    """Count in the events of a Chrome trace.

    The backward pass of a GPU runs in a thread of autograd's, and with it the hooks on gradients.
    It is told from the writer's by the ranges with which autograd marks each of its operators.

    Args:
        events: Those of the trace, with `ph`, `cat`, `name`, `tid`, `ts`, `dur` and `args`.
        n_steps: Steps in the trace.

    Raises:
        ValueError: The marked range is not in the trace.
    """
    known = [e for e in events if e.get("ph") == "X"]
    marks = [e for e in known if e["name"] == MARK and e.get("cat") == "user_annotation"]
    if not marks:
        raise ValueError(f"the trace has no range {MARK!r} among its {len(known)} events")
    begin, end = marks[0]["ts"], marks[0]["ts"] + marks[0]["dur"]
    within = [e for e in known if begin <= e["ts"] <= end]
    training = {marks[0]["tid"]} | {
        e["tid"] for e in within if str(e["name"]).startswith("autograd::engine::evaluate_function")
    }
    calls = [e for e in within if e.get("cat") in ("cuda_runtime", "cuda_driver")]
    waits = [e["tid"] in training for e in calls if e["name"] in _WAITS]
    asked_by = {e["args"]["correlation"]: e["tid"] for e in calls if "correlation" in e["args"]}
    copies = [
        asked_by.get(e["args"].get("correlation")) in training
        for e in known
        if e.get("cat") == "gpu_memcpy" and "DtoH" in e["name"]
    ]
    return Syncs(sum(waits), sum(copies), len(waits) - sum(waits), n_steps)
