"""Root and consequence: which alerts are told, and which are folded under another.

Rules say what they may follow from (`Rule.follows`), layers have their depth. An alert that fires
while such a cause is active, that is pending or firing, is folded under it, or under the cause of
the cause. Of several causes that of the outermost layer counts, for `anywhere` the earliest. What
only follows is stored with its root, and not told. When a cause that fired has ended, what followed
from it gets some steps to end as well, before it counts as an illness of its own; when a cause
never came to fire, what was folded under it is told at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from .rule import Rule

# So many observed steps an alert may outlive its cause.
GRACE_STEPS = 20


@dataclass(frozen=True, slots=True)
class Root:
    """The alert that another one follows from."""

    number: int
    layer: str


@dataclass(slots=True, eq=False)
class Lane:
    """A rule that is pending or fires on a layer, in one phase.

    Attributes:
        root: What it follows from; None for a root.
        value: The figure at its latest transition.
    """

    number: int
    layer: str
    since_step: int
    fires: bool = False
    has_fired: bool = False
    root: Root | None = None
    root_fired: bool = False
    n_orphaned: int = 0
    orphaned_at: int = -1
    value: float | None = None


class Family:
    """The active alerts of one phase and how they hang together."""

    def __init__(self, causes: Sequence[Sequence[tuple[str, frozenset[int]]]]) -> None:
        self._causes = causes
        self._lanes: dict[int, dict[str, Lane]] = {}  # by number of the rule, layer

    @property
    def has_orphans(self) -> bool:
        """Whether an alert waits for its end, its cause being over."""
        return any(lane.orphaned_at >= 0 for lane in self._all())

    def change(self, number: int, layer: str, state: str, since_step: int | None) -> Lane | None:
        """Take a transition; return the lane that it is about, if it is or was active."""
        of_rule = self._lanes.setdefault(number, {})
        if state not in ("pending", "firing"):
            return of_rule.pop(layer, None)
        lane = of_rule.get(layer)
        if lane is None:
            lane = of_rule[layer] = Lane(number, layer, since_step or 0)
        lane.fires = state == "firing"
        lane.has_fired |= lane.fires
        return lane

    def settle(self, step: int, depths: dict[str, int]) -> list[Lane]:
        """Find the roots anew after the transitions of one moment.

        Returns:
            Firing lanes whose root is another one than before.
        """
        found: dict[Lane, Lane | None] = {}
        moved = []
        for lane in [lane for lane in self._all() if lane.fires]:
            root = self._root(lane, depths, found, [])
            if self._set_root(lane, root, step):
                moved.append(lane)
        return moved

    def followers(self, lane: Lane) -> int:
        """How many firing alerts are folded under one."""
        root = Root(lane.number, lane.layer)
        return sum(other.fires and other.root == root for other in self._all())

    def _all(self) -> Iterator[Lane]:
        for number in sorted(self._lanes):
            yield from self._lanes[number].values()

    def _set_root(self, lane: Lane, root: Lane | None, step: int) -> bool:
        """Hang a lane under another; whether that is news."""
        if root is not None:
            is_new = lane.root != (new := Root(root.number, root.layer))
            lane.root, lane.root_fired, lane.orphaned_at = new, root.has_fired, -1
            lane.n_orphaned = 0
            return is_new
        if lane.root is None:
            return False
        if lane.root_fired:
            lane.n_orphaned += step != lane.orphaned_at
            lane.orphaned_at = step
            if lane.n_orphaned <= GRACE_STEPS:
                return False
        lane.root, lane.orphaned_at, lane.n_orphaned = None, -1, 0
        return True

    def _root(
        self, lane: Lane, depths: dict[str, int], found: dict[Lane, Lane | None], path: list[Lane]
    ) -> Lane | None:
        """The cause of the causes of a lane; None where there is none."""
        if lane in found:
            return found[lane]
        cause = self._cause(lane, depths, path)
        if cause is not None:
            cause = self._root(cause, depths, found, [*path, lane]) or cause
        found[lane] = cause
        return cause

    def _cause(self, lane: Lane, depths: dict[str, int], path: list[Lane]) -> Lane | None:
        for place, numbers in self._causes[lane.number]:
            near = [
                other
                for number in numbers
                for other in self._lanes.get(number, {}).values()
                if other is not lane
                and other not in path
                and (_lies(other, place, lane, depths) or self._explains(other, place, lane))
            ]
            if near:
                return min(near, key=lambda x: _rank(x, place, depths))
        return None

    def _explains(self, cause: Lane, place: str, lane: Lane) -> bool:
        """Whether one that began at the same step is a cause, as it is no consequence itself."""
        mutual = any(
            p == "anywhere" and lane.number in numbers for p, numbers in self._causes[cause.number]
        )
        return place == "anywhere" and cause.since_step == lane.since_step and not mutual


def causes_of(rules: Sequence["Rule"]) -> list[list[tuple[str, frozenset[int]]]]:
    """For each rule the places and numbers of the rules that it may follow from, in its order."""
    causes = []
    for rule in rules:
        places: dict[str, set[int]] = {}
        for place, glob in rule.causes:
            numbers = {i for i, r in enumerate(rules) if fnmatchcase(r.name, glob)}
            places.setdefault(place, set()).update(numbers)
        causes.append([(place, frozenset(numbers)) for place, numbers in places.items()])
    return causes


def _rank(cause: Lane, place: str, depths: dict[str, int]) -> tuple[int, int, int, str]:
    """The first of several causes is the root's: the outermost layer, or the earliest step."""
    depth = depths.get(cause.layer, len(depths))
    if place in ("anywhere", "here"):
        return (cause.since_step, cause.number, depth, cause.layer)
    return (-depth if place == "behind" else depth, cause.since_step, cause.number, cause.layer)


def _lies(cause: Lane, place: str, lane: Lane, depths: dict[str, int]) -> bool:
    if place == "anywhere":  # what began earlier; two that began together are no circle
        return _rank(cause, place, depths) < _rank(lane, place, depths)
    if place == "here":
        return cause.layer == lane.layer
    there, own = depths.get(cause.layer), depths.get(lane.layer)
    if there is None or own is None:
        return False
    return there < own if place == "before" else there > own
