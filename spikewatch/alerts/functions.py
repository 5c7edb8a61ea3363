"""The history functions: from the latest figures of a layer, as (step, figure), to a number."""

import math
from collections.abc import Callable, Sequence
from operator import itemgetter, mul
from statistics import median


Point = tuple[int, float]  # step, figure
MOST = 1000  # windows that a function may look back: bounds memory
BASELINE = 20


# These run for every row of every layer: sums without a generator take half the time.
_step, _figure = itemgetter(0), itemgetter(1)


def _mean(points: Sequence[Point]) -> float:
    return math.fsum(map(_figure, points)) / len(points)


def _std(points: Sequence[Point]) -> float:
    mean = _mean(points)
    return math.sqrt(math.fsum((y - mean) ** 2 for _, y in points) / (len(points) - 1))


def _slope(points: Sequence[Point]) -> float | None:
    """Least squares; None where all figures are of one step."""
    if len(set(map(_step, points))) == 1:
        return None
    if len(set(map(_figure, points))) == 1:
        return 0.0  # as of a share that stays 0, in most layers that are well
    x_mean, y_mean = math.fsum(map(_step, points)) / len(points), _mean(points)
    dx = [x - x_mean for x, _ in points]
    return math.fsum(map(mul, dx, [y - y_mean for _, y in points])) / math.fsum(map(mul, dx, dx))


def _overdue(points: Sequence[Point]) -> float:
    """Zeros at the end, over the longest row of zeros before them that something ended."""
    if points[-1][1]:
        return 0.0
    longest = run = 0
    for _, y in points:
        if y:
            longest, run = max(longest, run), 0
        else:
            run += 1
    return run / max(1, longest)


# Name: what it computes, and what that is.
FUNCTIONS: dict[str, tuple[Callable[[Sequence[Point]], float | None], str]] = {
    "avg_over": (_mean, "avg_over(x, n): mean of the latest n figures, this one included"),
    "min_over": (lambda p: min(map(_figure, p)), "min_over(x, n): least of the latest n"),
    "max_over": (lambda p: max(map(_figure, p)), "max_over(x, n): greatest of the latest n"),
    "std_over": (_std, "std_over(x, n): standard deviation of the latest n"),
    "slope": (_slope, "slope(x, n): least-squares slope of the latest n, per training step"),
    "ago": (lambda p: p[0][1], "ago(x, n): the figure n windows ago"),
    "overdue": (
        _overdue,
        "overdue(x, n): for how many figures x has been 0, as a multiple of the most it ever was "
        "before among the latest n, or of 1; it needs no more than one figure",
    ),
    "baseline": (
        lambda p: median(y for _, y in p),
        f"baseline(x): the layer's own normal, the median of its first {BASELINE} figures since "
        "after_step; baseline(x, n): of its first n",
    ),
}
HELP = [text for _, text in FUNCTIONS.values()]
