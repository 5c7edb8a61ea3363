"""One training, watched as anyone would watch theirs, and what was told of it."""

import contextlib
import io
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import torch

import spikewatch
from spikewatch.alerts.check import alerts_of
from spikewatch.alerts.engine import Engine
from spikewatch.alerts.loading import load_rules
from spikewatch.alerts.verdict import LANE, judge
from spikewatch.metrics.wide import COLUMNS

from .beds import make
from .illness import Illness


if TYPE_CHECKING:
    from spikewatch.store import Store

_RUN = "run"


@dataclass(frozen=True)
class Told:
    """An alert that fired.

    Attributes:
        rule: Of the shipped ones.
        layer: Where.
        severity: Of the rule.
        step: At which it fired first.
        told_step: When it was told; None for one that was folded under another all the time.
        stays_root: Whether the verdict of the whole run tells it by itself.
    """

    rule: str
    layer: str
    severity: str
    step: int
    told_step: int | None
    stays_root: bool


@dataclass(frozen=True)
class Record:
    """What came of one training.

    Attributes:
        bed: Its name.
        seed: Of everything that is random in it.
        illness: Name of the planted illness; None for a healthy twin.
        n_steps: Its length.
        n_layer_windows: Rows of spiking and ternary layers that the rules judged.
        alerts: What fired, in the order in which it fired.
    """

    bed: str
    seed: int
    illness: str | None
    n_steps: int
    n_layer_windows: int
    alerts: tuple[Told, ...]


def train(
    bed: str,
    seed: int,
    n_steps: int,
    *,
    illness: Illness | None = None,
    folder: Path | None = None,
    every: int = 1,
) -> Record:
    """Train, watch, judge.

    Args:
        bed: What to train.
        seed: Of everything that is random.
        n_steps: Optimizer steps.
        illness: What to plant; None for the healthy twin.
        folder: Where to keep the run; by default it is thrown away.
        every: Observe every n-th step.
    """
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # Alerts are told on stderr; and PyTorch warns of some illnesses by itself.
        with _one_thread(), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _train(bed, seed, n_steps, illness=illness, folder=folder, every=every)
        return judged(folder, bed=bed, seed=seed, n_steps=n_steps, illness=illness)


def _train(
    bed: str, seed: int, n_steps: int, *, illness: Illness | None, folder: Path, every: int
) -> None:
    training, train_set, test_set = make(bed, seed)
    if illness is not None and illness.onset == 0:
        illness.strike(training)
    results = training.fit(train_set, test_set, seed=seed, n_steps=n_steps)
    watched = {"run": _RUN, "dir": folder, "every": every, "quiet": True}
    teacher = getattr(training, "teacher", None)
    with spikewatch.attach(training.net, teacher=teacher, **watched) as watch:
        for n_done, result in enumerate(results, start=1):
            watch.log(**result)
            if illness is not None and n_done == illness.onset:
                illness.strike(training)


def judged(folder: Path, *, bed: str, seed: int, n_steps: int, illness: Illness | None) -> Record:
    """What the rules said of a run that is kept in a folder."""
    with spikewatch.open_store(folder) as store:
        alerts = alerts_of(store, _RUN)
        if illness is not None and illness.silence_s:
            alerts = _after_silence(store, illness.silence_s)
        windows = store.sql(
            "SELECT count(*) AS n FROM wide WHERE run = $run AND phase = 'train' "
            "AND (n_obs IS NOT NULL OR n_weights IS NOT NULL)",
            {"run": _RUN},
        )["n"].item()
    name = None if illness is None else illness.name
    return Record(bed, seed, name, n_steps, windows, _told(alerts))


def _told(alerts: pl.DataFrame) -> tuple[Told, ...]:
    fired = judge(_RUN, alerts, fail_on="info", state="finished").fired
    aloud = alerts.filter(pl.col("root_rule").is_null(), state="firing")
    told_at = {
        tuple(lane): step
        for *lane, step in aloud.group_by(LANE, maintain_order=True)
        .agg(pl.col("step").first())
        .iter_rows()
    }
    told = [
        Told(
            rule=row["rule"],
            layer=row["layer"],
            severity=row["severity"],
            step=row["step"],
            told_step=told_at.get(tuple(row[key] for key in LANE)),
            stays_root=row["root_rule"] is None,
        )
        for row in fired.iter_rows(named=True)
    ]
    return tuple(sorted(told, key=lambda t: t.step))


def _after_silence(store: "Store", seconds: float) -> pl.DataFrame:
    """The alerts of a run after which nothing came in for so long."""
    columns = ", ".join(f'"{c}"' for c in COLUMNS)
    rows = store.sql(
        f'SELECT {columns} FROM wide WHERE run = $run ORDER BY step, phase, "at", layer',  # noqa: S608
        {"run": _RUN},
    ).cast(dict(COLUMNS))
    engine = Engine(load_rules(), run=_RUN, rank=0)
    before = engine.feed(rows)
    latest = rows["at"].max()
    return pl.concat([before, engine.tick(latest + timedelta(seconds=seconds))])


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n)
