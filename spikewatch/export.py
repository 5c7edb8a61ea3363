"""A run as TensorBoard event files, for those who compare runs there."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import MissingExtraError, StoreError
from .metrics import TABLES


if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from .store import Store


def export_tensorboard(store: "Store", run: str, folder: str | Path) -> int:
    """Write a run's metrics, scalars and histograms as TensorBoard event files.

    Each phase becomes a run of TensorBoard's, `folder/<run>/<phase>` (with several ranks
    `folder/<run>/<phase>-rank<r>`). A metric of a layer is `metric/layer`, a scalar keeps its name.

    Args:
        store: Where the run is.
        run: Its name.
        folder: Where to write; made if need be. What is there stays.

    Returns:
        Number of points and histograms written.

    Raises:
        StoreError: There is no such run, or the folder cannot be written.
        MissingExtraError: TensorBoard is not installed.
    """
    _check_run(store, run)
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "Writing TensorBoard files") from error

    places = "SELECT DISTINCT rank, phase FROM wide WHERE run = $run ORDER BY ALL"
    parts = store.sql(places, {"run": run}).rows()
    several = len({rank for rank, _ in parts}) > 1
    n = 0
    for rank, phase in parts:
        place = Path(folder) / run / (f"{phase}-rank{rank}" if several else phase)
        try:
            with SummaryWriter(str(place)) as writer:
                n += _write(writer, store, {"run": run, "rank": rank, "phase": phase})
        except OSError as error:
            raise StoreError(
                f"Cannot write TensorBoard files to {str(place)!r}: {error.strerror or error}. "
                "Choose another folder, or free some space."
            ) from error
    return n


def _check_run(store: "Store", run: str) -> None:
    known = store.runs()["run"].to_list()
    if run not in known:
        listed = ", ".join(map(repr, known)) or "none yet"
        raise StoreError(f"There is no run {run!r}. The runs here: {listed}.")


def _write(writer: "SummaryWriter", store: "Store", part: Mapping[str, Any]) -> int:
    n = 0
    for table in TABLES.values():
        for metric in table.metrics:
            rows = _rows(store, table.name, f'layer, "{metric.name}"', part)
            points = [(f"{metric.name}/{layer}", *rest) for layer, *rest in rows]
            n += _write_points(writer, points)
    n += _write_points(writer, _rows(store, "scalars", "name, value", part))
    for histogram in _rows(store, "histograms", "layer, kind, edges, counts, below, above", part):
        n += _write_histogram(writer, *histogram)
    return n


def _rows(store: "Store", table: str, columns: str, part: Mapping[str, Any]) -> list[tuple]:
    query = f"""SELECT {columns}, step, "at" FROM {table}
        WHERE run = $run AND rank = $rank AND phase = $phase ORDER BY step, "at"
    """  # noqa: S608 - names of the catalogue
    return store.sql(query, part).rows()


def _write_points(writer: "SummaryWriter", points: Iterable[tuple[Any, ...]]) -> int:
    n = 0
    for tag, value, step, at in points:
        if value is not None:  # without evidence there is no point
            writer.add_scalar(tag, value, step, walltime=_walltime(at))
            n += 1
    return n


def _write_histogram(
    writer: "SummaryWriter",
    layer: str,
    kind: str,
    edges: list[float],
    counts: list[int],
    below: int | None,
    above: int | None,
    step: int,
    at: datetime,
) -> int:
    """Write one histogram; what lies outside the edges becomes the first and the last bucket."""
    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    buckets = [(edges[0], below or 0), *zip(edges[1:], counts, strict=True)]
    buckets.append((2 * edges[-1] - edges[-2], above or 0))
    places = [edges[0], *middles, edges[-1]]
    weights = [count for _, count in buckets]
    if not sum(weights):
        return 0
    writer.add_histogram_raw(
        f"{kind}/{layer}",
        min=edges[0],
        max=edges[-1],
        num=sum(weights),
        sum=sum(w * x for w, x in zip(weights, places, strict=True)),
        sum_squares=sum(w * x * x for w, x in zip(weights, places, strict=True)),
        bucket_limits=[limit for limit, _ in buckets],
        bucket_counts=weights,
        global_step=step,
        walltime=_walltime(at),
    )
    return 1


def _walltime(at: datetime | None) -> float | None:
    return None if at is None else at.replace(tzinfo=UTC).timestamp()
