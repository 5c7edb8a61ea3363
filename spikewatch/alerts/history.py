"""What a condition may ask of a layer's past: a few functions over its latest figures.

Each looks at the known, finite figures of one column of one layer in one phase. It is NULL until it
has all that it needs, and where the row itself does not know the figure: no new evidence is no
verdict. A function is computed anew from what is kept, with exactly rounded sums, so that its value
does not depend on how the rows come in: live, in replay, one by one or all at once.
"""

import math
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import polars as pl

from ..errors import RuleError
from .endings import Ending
from .functions import BASELINE, FUNCTIONS, MOST, Point
from .vocabulary import COLUMNS


@dataclass(frozen=True)
class Lookback:
    """One use of a function: what it looks at, and how far."""

    function: str
    column: str
    n: int
    from_step: int = 0

    @property
    def label(self) -> str:
        """Its column in the frame that conditions are evaluated on."""
        since = f", since {self.from_step}" if self.from_step else ""
        return f"{self.function}({self.column}, {self.n}{since})"

    @property
    def n_kept(self) -> int:
        """How many figures it keeps."""
        return self.n + 1 if self.function == "ago" else self.n

    @property
    def n_needed(self) -> int:
        """From how many figures on it says something."""
        return 1 if self.function == "overdue" else self.n_kept


# Texts, names in quotes and comments; what is left may be a call of ours.
QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
_PIECES = re.compile(
    QUOTED.pattern + rf"""|\b(?P<name>{"|".join(FUNCTIONS)})\s*\((?P<arguments>[^()]*)\)""",
    re.DOTALL | re.IGNORECASE,
)


def rewrite(sql: str, *, after_step: int = 0) -> tuple[str, tuple[Lookback, ...]]:
    """Replace calls of history functions by columns.

    Args:
        sql: A condition.
        after_step: Before this step a baseline takes no figures.

    Returns:
        The condition with columns in place of calls, and what these columns hold.

    Raises:
        RuleError: A call has other arguments than a column and a number of windows.
    """
    found: dict[str, Lookback] = {}

    def column(match: re.Match[str]) -> str:
        if match["name"] is None:
            return match[0]
        lookback = _lookback(match, after_step=after_step)
        found[lookback.label] = lookback
        return f'"{lookback.label}"'

    return _PIECES.sub(column, sql), tuple(found.values())


def _lookback(match: re.Match[str], *, after_step: int) -> Lookback:
    name = match["name"].lower()
    arguments = [part.strip() for part in match["arguments"].split(",")]
    if name == "baseline" and len(arguments) == 1:
        arguments.append(str(BASELINE))
    wanted = f"Write {FUNCTIONS[name][1].partition(':')[0]}, with a column's name and a number."
    if len(arguments) != 2 or not arguments[1].isdecimal() or not arguments[0].isidentifier():
        raise RuleError(f"{match[0]!r} cannot be read. {wanted}")
    least = 1 if name == "ago" else 2
    if not least <= int(arguments[1]) <= MOST:
        raise RuleError(f"{match[0]!r} looks back {arguments[1]} windows; {least} to {MOST} may be")
    if arguments[0] in COLUMNS and not COLUMNS[arguments[0]].is_numeric():
        raise RuleError(f"{match[0]!r}: {arguments[0]!r} is no figure. {wanted}")
    from_step = after_step if name == "baseline" else 0
    return Lookback(name, arguments[0], int(arguments[1]), from_step)


@dataclass(slots=True)
class _Memory:
    """What one lookback keeps of one layer in one phase."""

    points: deque[Point]
    frozen: float | None = None
    full: bool = field(default=False)


class History:
    """The memory of all lookbacks, bounded by layers × lookbacks × `MOST`."""

    def __init__(self, lookbacks: Iterable[Lookback]) -> None:
        self._memories: dict[Lookback, dict[tuple[str, str], _Memory]] = {x: {} for x in lookbacks}

    def end(self, ending: Ending) -> None:
        """Forget the figures of a layer."""
        for memories in self._memories.values():
            for place in [x for x in memories if ending.is_of(x[1])]:
                del memories[place]

    def extend(self, wide: pl.DataFrame) -> pl.DataFrame:
        """Take rows in order; return them with a column for each lookback."""
        if not self._memories:
            return wide
        places = list(zip(wide["phase"].to_list(), wide["layer"].to_list(), strict=True))
        steps = wide["step"].to_list()
        new = []
        for lookback, memories in self._memories.items():
            figures = wide[lookback.column]
            values: list[float | None] = [None] * wide.height
            if figures.null_count() < wide.height:
                for row, y in enumerate(figures.to_list()):
                    if y is not None and math.isfinite(y):
                        values[row] = _take(lookback, memories, places[row], (steps[row], float(y)))
            new.append(pl.Series(lookback.label, values, dtype=pl.Float64))
        return wide.with_columns(new)


def _take(
    lookback: Lookback,
    memories: dict[tuple[str, str], _Memory],
    place: tuple[str, str],
    point: Point,
) -> float | None:
    """Take one figure; what the function gives for it."""
    memory = memories.get(place)
    if memory is None:
        memory = memories[place] = _Memory(deque(maxlen=lookback.n_kept))
    if memory.full:
        return memory.frozen
    if point[0] < lookback.from_step:
        return None
    memory.points.append(point)
    if len(memory.points) < lookback.n_needed:
        return None
    value = FUNCTIONS[lookback.function][0](memory.points)
    if lookback.function == "baseline":
        memory.frozen, memory.full = value, True
        memory.points.clear()
    return value
