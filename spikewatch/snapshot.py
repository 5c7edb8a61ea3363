"""From counters on devices to rows on the host, in one transfer a device.

`take()` runs in the training thread and only queues work; `Snapshot.rows()` waits for the numbers
and runs in the writer thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import torch
from torch import Tensor

from .metrics.gradients import add_deepest
from .observing import Counts


Row = dict[str, Any]


@dataclass(frozen=True)
class _Slot:
    """Where a tensor's elements are in the transfer of its device."""

    device: torch.device
    start: int
    length: int
    scalar: bool


class Snapshot:
    """The counters of every layer in one observed step."""

    def __init__(self, keys: Row, counts: Sequence[tuple[str, Counts]]) -> None:
        self._keys = keys
        self._pieces: dict[torch.device, list[Tensor]] = {}
        self._used: dict[torch.device, int] = {}
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
        # One copy, on the device: what is counted from now on does not change it.
        self._whole = {device: torch.cat(pieces) for device, pieces in self._pieces.items()}
        self._pieces.clear()

    def _put(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        pieces = self._pieces.setdefault(value.device, [])
        start = self._used.get(value.device, 0)
        # float64 holds counts exactly up to 2^53.
        pieces.append(value.detach().reshape(-1).to(torch.float64))
        self._used[value.device] = start + value.numel()
        return _Slot(value.device, start, value.numel(), value.dim() == 0)

    def rows(self) -> dict[str, list[Row]]:
        """Rows by table, with keys; waits for the device."""
        host = {device: whole.tolist() for device, whole in self._whole.items()}

        def get(value: Any) -> Any:
            if not isinstance(value, _Slot):
                return value
            numbers = host[value.device][value.start : value.start + value.length]
            return numbers[0] if value.scalar else [int(n) for n in numbers]

        rows: dict[str, list[Row]] = {}
        for layer, table, counters in self._tables:
            row = {name: _bitmap(get(value)) for name, value in counters.items()}
            rows.setdefault(table, []).append(self._keys | {"layer": layer} | row)
        add_deepest(rows.get("gradients", []))
        for layer, kind, edges, parts in self._histograms:
            counts, below, above = map(get, parts)
            row = {"kind": kind, "edges": edges, "counts": counts, "below": below, "above": above}
            rows.setdefault("histograms", []).append(self._keys | {"layer": layer} | row)
        return rows


def _bitmap(value: Any) -> Any:
    return bytes(value) if isinstance(value, list) else value


def take(
    counts: Sequence[tuple[str, Counts]],
    *,
    run: str,
    rank: int,
    phase: str,
    step: int,
    at: datetime,
) -> Snapshot:
    """Snapshot the counters of all layers for one row of each table."""
    keys = {"run": run, "rank": rank, "phase": phase, "step": step, "at": at}
    return Snapshot(keys, counts)
