"""The history functions: from the latest figures of a layer, as (step, figure), to a number."""

import math
from collections.abc import Callable, Sequence
from statistics import median


Point = tuple[int, float]  # step, figure
MOST = 1000  # windows that a function may look back: bounds memory
BASELINE = 20


def _mean(points: Sequence[Point]) -> float:
    return math.fsum(y for _, y in points) / len(points)


def _std(points: Sequence[Point]) -> float:
    mean = _mean(points)
    return math.sqrt(math.fsum((y - mean) ** 2 for _, y in points) / (len(points) - 1))


def _slope(points: Sequence[Point]) -> float | None:
    """Least squares; None where all figures are of one step."""
    x_mean, y_mean = math.fsum(x for x, _ in points) / len(points), _mean(points)
    spread = math.fsum((x - x_mean) ** 2 for x, _ in points)
    if spread == 0:
        return None
    return math.fsum((x - x_mean) * (y - y_mean) for x, y in points) / spread


# Name: what it computes, and what that is.
FUNCTIONS: dict[str, tuple[Callable[[Sequence[Point]], float | None], str]] = {
    "avg_over": (_mean, "avg_over(x, n): mean of the latest n figures, this one included"),
    "min_over": (lambda p: min(y for _, y in p), "min_over(x, n): least of the latest n"),
    "max_over": (lambda p: max(y for _, y in p), "max_over(x, n): greatest of the latest n"),
    "std_over": (_std, "std_over(x, n): standard deviation of the latest n"),
    "slope": (_slope, "slope(x, n): least-squares slope of the latest n, per training step"),
    "ago": (lambda p: p[0][1], "ago(x, n): the figure n windows ago"),
    "baseline": (
        lambda p: median(y for _, y in p),
        f"baseline(x): the layer's own normal, the median of its first {BASELINE} figures since "
        "after_step; baseline(x, n): of its first n",
    ),
}
HELP = [text for _, text in FUNCTIONS.values()]
