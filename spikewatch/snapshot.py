"""From counters on devices to rows on the host, in one transfer a device.

`take()` runs in the training thread and only queues work; `Snapshot.rows()` waits for the numbers
and runs in the writer thread.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import torch
from torch import Tensor

from .metrics.amplitudes import add_siblings
from .metrics.energy import add_samples, add_ternary
from .metrics.gradients import add_deepest
from .observing import Counts, OnHost


Row = dict[str, Any]


_UNKNOWN_SPIKES = (
    "its operations a sample are not told, nor those of other layers: what it is given looks like "
    "spikes, but no layer is known to make them, so neither is the number of time steps. Name what "
    "makes them: attach(model, layers=[its name]), or spikewatch.tap('name', spikes)"
)

Lane = tuple[torch.device, torch.dtype]


@dataclass(slots=True)
class _Slot:
    """Where a tensor's elements are in what comes from its device."""

    lane: Lane
    start: int
    length: int
    scalar: bool


class Snapshot:
    """The counters of every layer in one observed step."""

    def __init__(
        self,
        keys: Row,
        counts: Sequence[tuple[str, Counts]],
        *,
        spiking: bool,
        note: Callable[[str, str], None],
    ) -> None:
        self._keys = keys
        self._note = note
        self._spiking = spiking
        self._pieces: dict[Lane, _Pieces] = {}
        self._tables = [
            (layer, table, {name: self._put(value) for name, value in counters.items()})
            for layer, c in counts
            for table, counters in c.tables.items()
        ]
        self._histograms = [
            (layer, h.kind, tuple(h.edges), [self._put(x) for x in (h.counts, h.below, h.above)])
            for layer, c in counts
            for h in c.histograms
        ]
        # One copy a lane, on its way at once: what is counted from now on does not change it.
        with torch.no_grad():
            self._copies = {lane: pieces.copy() for lane, pieces in self._pieces.items()}
        self._pieces.clear()

    def _put(self, value: Any) -> Any:
        if isinstance(value, OnHost):
            return (self._put(value.readings), value.fold)
        if not isinstance(value, Tensor):
            return value
        lane = (value.device, value.dtype)
        pieces = self._pieces.get(lane)
        if pieces is None:
            pieces = self._pieces[lane] = _Pieces()
        scalar = value.dim() == 0
        start = pieces.add(value, scalar=scalar)
        return _Slot(lane, start, value.numel(), scalar)

    def rows(self) -> dict[str, list[Row]]:
        """Rows by table, with keys; waits for the device."""
        host = {lane: copy.numbers() for lane, copy in self._copies.items()}

        def get(value: Any) -> Any:
            if not isinstance(value, _Slot):
                return value
            scalars, numbers = host[value.lane]
            if value.scalar:
                return scalars[value.start]
            return numbers[value.start : value.start + value.length]

        rows: dict[str, list[Row]] = {}
        for layer, table, counters in self._tables:
            row = _row(counters, get)
            if any(value is not None for value in row.values()):
                rows.setdefault(table, []).append({**self._keys, "layer": layer, **row})
        add_deepest(rows.get("gradients", []))
        add_siblings(rows.get("amplitudes", []))
        add_ternary(rows)
        unknown = add_samples(rows, spiking=self._spiking)
        if unknown is not None:
            self._note(unknown, _UNKNOWN_SPIKES)
        for layer, kind, edges, parts in self._histograms:
            counts, below, above = map(get, parts)
            row = {"kind": kind, "edges": edges, "counts": counts, "below": below, "above": above}
            rows.setdefault("histograms", []).append(self._keys | {"layer": layer} | row)
        return rows


class _Pieces:
    """What is to come from one device in one go: scalars, which are stacked, and vectors."""

    def __init__(self) -> None:
        self._scalars: list[Tensor] = []
        self._vectors: list[Tensor] = []
        self._n_elements = 0  # of the vectors

    def add(self, value: Tensor, *, scalar: bool) -> int:
        """Take one in; returns where it begins, among its like."""
        if scalar:
            self._scalars.append(value)
            return len(self._scalars) - 1
        self._vectors.append(value.reshape(-1))
        self._n_elements += value.numel()
        return self._n_elements - value.numel()

    def copy(self) -> "Copy":
        """All of them as one vector, on its way."""
        scalars = [torch.stack(self._scalars)] if self._scalars else []
        return Copy(torch.cat(scalars + self._vectors), len(self._scalars))


class Copy:
    """A vector on its way to the host. The training thread does not wait for it."""

    def __init__(self, whole: Tensor, n_scalars: int) -> None:
        self._event = None
        self._host = whole
        self._n_scalars = n_scalars
        if whole.is_cuda:
            self._host = whole.to("cpu", non_blocking=True)  # to pinned memory
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(whole.device))

    def numbers(self) -> tuple[list[float], list[float]]:
        """The scalars, and the elements of the vectors; waits for the device."""
        if self._event is not None:
            self._event.synchronize()
        numbers = self._host.tolist()
        return numbers[: self._n_scalars], numbers[self._n_scalars :]


def _row(counters: Mapping[Any, Any], get: Callable[[Any], Any]) -> Row:
    """Counters by their own names, with what `get` has of those that come from a device."""
    row: Row = {}
    for name, value in counters.items():
        if isinstance(value, tuple):
            readings, fold = value
            row.update(fold(get(readings)))
        elif isinstance(name, tuple):
            row.update(zip(name, get(value), strict=True))
        elif isinstance(value, _Slot):
            is_bitmap = value.lane[1] == torch.uint8
            row[name] = bytes(get(value)) if is_bitmap else get(value)
        else:
            row[name] = value
    return row


def take(
    counts: Sequence[tuple[str, Counts]],
    *,
    run: str,
    rank: int,
    phase: str,
    step: int,
    at: datetime,
    spiking: bool,
    note: Callable[[str, str], None],
) -> Snapshot:
    """Snapshot the counters of all layers, some of them spiking, for one row of each table.

    `note` is called in the writer thread, with what the user should know of a layer.
    """
    keys = {"run": run, "rank": rank, "phase": phase, "step": step, "at": at}
    return Snapshot(keys, counts, spiking=spiking, note=note)
