"""The writer thread: rows from snapshots, metrics, rules, journal. Training never waits for it.

Most of what a write costs does not depend on how much there is to write. So the thread rests the
longer, the more its latest write took, but never for a second: so much a killed process may lose.
After a look that found nothing it rests longest, since training pays for each look.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from .metrics import RECORDS, TABLES


if TYPE_CHECKING:
    from .alerts.actions import Dispatcher
    from .alerts.engine import Engine
    from .journal import JournalWriter
    from .snapshot import Snapshot

_log = logging.getLogger("spikewatch")

# A killed process loses at most what came in since the last write.
WRITE_EVERY_S = (0.5, 0.9)
WRITER_SHARE = 0.01  # of one core, as far as these bounds allow
# Beyond so many waiting snapshots (or frames that a full disk refused) the oldest is dropped.
MAX_WAITING = 1024

Tables = dict[str, pl.DataFrame]


def utc_now() -> datetime:
    """Now, as stored: UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


class Recorder:
    """Takes snapshots and rows from the training thread and writes them every other moment.

    Attributes:
        rank: Of this process in distributed training.
        muted: Take nothing more; for a forked process, in which nobody writes.
        on_wake: Called each time that the thread wakes up.
        on_end: Called when it ends.
    """

    def __init__(
        self,
        journal: "JournalWriter",
        engine: "Engine",
        dispatcher: "Dispatcher",
        *,
        run: str,
        rank: int,
    ) -> None:
        self._journal = journal
        self._engine = engine
        self._dispatcher = dispatcher
        self.rank = rank
        self._keys = {"run": run, "rank": rank}
        self._waiting: deque[Snapshot | tuple[str, dict[str, Any]]] = deque()
        self._unwritten: deque[Tables] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._write_failed = False
        self.muted = False
        self.on_wake: Callable[[], None] = lambda: None
        self.on_end: Callable[[], None] = lambda: None
        self._n_dropped = 0
        self._cpu_s = 0.0
        self._thread = threading.Thread(target=self._run, name="spikewatch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._dispatcher.on_trouble = self._channel_trouble
        self._dispatcher.start()
        self._thread.start()

    def submit(self, snapshot: "Snapshot") -> None:
        """Hand over an observed step; returns at once."""
        self._put(snapshot)

    def record(self, table: str, **values: Any) -> None:
        """Hand over a row of one of `RECORDS`; a value may be a function that waits for it."""
        self._put((table, self._keys | {"at": utc_now()} | values))

    def event(self, kind: str, message: str, *, step: int, layer: str = "") -> None:
        """Hand over a row of `events`."""
        self.record("events", kind=kind, message=message, step=step, layer=layer)

    def _channel_trouble(self, message: str) -> None:
        self.record("events", kind="channel", message=message, step=None, layer="")

    def take_cpu_s(self) -> float:
        """CPU time of this thread since the last call: part of what observing costs."""
        spent, self._cpu_s = self._cpu_s, 0.0
        return spent

    def close(self, *, timeout_s: float = 30.0) -> None:
        """Write all that waits, and end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return  # it closes the journal itself
        if self._unwritten:
            _log.warning(
                "spikewatch: %d writes to %s never succeeded and are lost. "
                "Free disk space before the next run.",
                len(self._unwritten),
                self._journal.path,
            )

    def _put(self, item: "Snapshot | tuple[str, dict[str, Any]]") -> None:
        if self.muted:
            return
        with self._wake:
            if len(self._waiting) >= MAX_WAITING:
                self._waiting.popleft()
                self._n_dropped += 1
            self._waiting.append(item)

    def _run(self) -> None:
        closing = False
        rest_s = rest_after(0.0)
        while not closing:
            with self._wake:
                if not self._closing:
                    self._wake.wait(rest_s)
                closing = self._closing
                items, self._waiting = list(self._waiting), deque()
                dropped, self._n_dropped = self._n_dropped, 0
            began = time.thread_time()
            now = utc_now()
            frames: Tables = {}
            try:
                self.on_wake()
                if dropped:
                    items.append(self._dropped(dropped))
                frames = self._frames(items)
                self._judge(frames, now=now, closing=closing)
                if frames:
                    self._queue(frames)
                self._write()
            except Exception:  # noqa: BLE001
                # Contract 1: a fault of ours must not end the thread, or all that follows is lost.
                _log.exception("spikewatch: could not record %d items", len(items))
            spent_s = time.thread_time() - began
            self._cpu_s += spent_s
            rest_s = rest_after(spent_s) if frames else WRITE_EVERY_S[1]
        self._say_goodbye()
        with contextlib.suppress(OSError):
            self._journal.close()
        self.on_end()

    def _say_goodbye(self) -> None:
        """Let the last alerts be sent, and store what became of that."""
        try:
            self._dispatcher.close()
            items, self._waiting = list(self._waiting), deque()
            if items:
                self._queue(self._frames(items))
                self._write()
        except Exception:  # noqa: BLE001 - see above
            _log.exception("spikewatch: could not record the last items")

    def _dropped(self, n: int) -> tuple[str, dict[str, Any]]:
        message = f"{n} observations were dropped, because writing fell behind"
        _log.warning("spikewatch: %s", message)
        row = {"kind": "dropped", "message": message, "step": None, "layer": ""}
        return ("events", self._keys | {"at": utc_now()} | row)

    def _frames(self, items: list[Any]) -> Tables:
        rows: dict[str, list[dict[str, Any]]] = {}
        for item in items:
            more = {item[0]: [item[1]]} if isinstance(item, tuple) else item.rows()
            for table, new in more.items():
                rows.setdefault(table, []).extend(new)
        return {name: frame(name, new) for name, new in rows.items()}

    def _judge(self, frames: Tables, *, now: datetime, closing: bool) -> None:
        """Judge what came in, and put the transitions to it."""
        try:
            parts = [self._engine.feed_tables(frames), self._engine.tick(now)]
            if closing:
                parts.append(self._engine.finish())
                for message in self._engine.never_judged():
                    self._tell_at_close(frames, message)
            if told := [part for part in parts if part.height]:
                frames["alerts"] = transitions = pl.concat(told)
                self._dispatcher.handle(transitions)
        except Exception:  # noqa: BLE001 - what was observed is worth more than its judgement
            _log.exception("spikewatch: the rules could not be evaluated")

    def _tell_at_close(self, frames: Tables, message: str) -> None:
        """Warn of something that is only known at the end, and store it."""
        _log.warning("spikewatch: %s", message)
        row = {"kind": "note", "message": message, "step": None, "layer": ""}
        event = frame("events", [self._keys | {"at": utc_now()} | row])
        frames["events"] = pl.concat([frames["events"], event]) if "events" in frames else event

    def _queue(self, frames: Tables) -> None:
        self._unwritten.append(frames)
        while len(self._unwritten) > MAX_WAITING:
            self._unwritten.popleft()
            self._n_dropped += 1

    def _write(self) -> None:
        while self._unwritten:
            try:
                self._journal.append(self._unwritten[0])
            except OSError as error:
                if not self._write_failed:
                    _log.warning(
                        "spikewatch: cannot write to %s (%s). Training goes on; up to %d writes "
                        "are kept in memory and tried again. Free some space.",
                        self._journal.path,
                        error.strerror or error,
                        MAX_WAITING,
                    )
                self._write_failed = True
                return
            self._write_failed = False
            self._unwritten.popleft()


def rest_after(spent_s: float) -> float:
    """How long the thread rests after a write that took `spent_s` seconds of its time."""
    least, most = WRITE_EVERY_S
    return min(max(spent_s / WRITER_SHARE, least), most)


def frame(table: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows of one table as a frame with the catalogue's columns, metrics included."""
    if table in TABLES:
        known = TABLES[table]
        names = {name for row in rows for name in row}
        # Counters come as float64 from the device; Polars casts them to their own types.
        raw = {name: [row.get(name) for row in rows] for name in names}
        return known.compute(pl.DataFrame(raw, strict=False))
    schema = RECORDS[table]
    data = {n: [x() if callable(x := row.get(n)) else x for row in rows] for n in schema}
    return pl.DataFrame(data, schema=schema, strict=False)
