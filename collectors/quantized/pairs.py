"""Two binary kernels on one input, which together are a ternary one (STTN).

Found by what they do: both are binary, they are called with the same tensor, and their sum has
three levels in each row. Their names only say which kernels to try.
"""

import re
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from torch import Tensor, nn

from spikewatch.layers import Layer
from spikewatch.observing import Counts, Session

from .instruments import INSTRUMENTS, Weights
from .look import Look
from .place import Place
from .verdicts import Verdict


class Half(Protocol):
    """One kernel, as its pair knows it."""

    layer: Layer
    place: Place | None
    pair: "Pair | None"

    @property
    def owner(self) -> nn.Module | None:
        """The module that keeps the weight, while it lives."""


_FIRST = re.compile(r"(.*[_a-zA-Z])(1|_a|_pos)")
_SECOND = {"1": "2", "_a": "_b", "_pos": "_neg"}
# What the name of the pair adds to that of its first kernel; "" for the second one.
_halves: "weakref.WeakKeyDictionary[nn.Module, str]" = weakref.WeakKeyDictionary()


def half_of_pair(module: nn.Module) -> str | None:
    """What the name of the pair adds to the module's, if it is one of two kernels that are added.

    "" for the second one, whose operations are those of the first: to run the network, the kernels
    are added. None for every other module.
    """
    return _halves.get(module)


class Pair:
    """The sum of two kernels."""

    def __init__(self, one: Half, other: Half) -> None:
        self.name = f"{one.layer.name}+{other.layer.name.rpartition('.')[2]}"
        self._one, self._other = weakref.ref(one), weakref.ref(other)
        self._waiting: tuple[Half, Look, Tensor] | None = None
        self._verdict = Verdict()
        self._counted: dict[str, Counts] = {}
        self._instruments = [make() for make in INSTRUMENTS]
        self._confirmed = False
        self._places = [p for p in (one.place, other.place) if p is not None]
        one.pair = other.pair = self

    @property
    def halves(self) -> tuple[Half | None, Half | None]:
        """The two kernels' observers, while they live."""
        return self._one(), self._other()

    def offer(self, observer: Half, look: Look, weight: Tensor) -> None:
        """Take the binary weight of one of the two; with the second one, their sum is counted."""
        before, self._waiting = self._waiting, (observer, look, weight)
        if before is None or before[0] is observer:
            return
        self._waiting = None
        same = before[1].input == look.input is not None and before[1].phase == look.phase
        if same and weight.shape == before[2].shape and weight.device == before[2].device:
            self._count(look.session, look, before[2] + weight)

    def _count(self, session: Session, look: Look, weight: Tensor) -> None:
        verdict, owner = self._verdict, look.module
        if verdict.is_due(owner):
            verdict.adopt(verdict.judge(weight), weight, None, owner, call=0)
        else:
            verdict.pass_by()
        levels = verdict.levels
        if levels is None or not verdict.is_ternary:
            return
        self._confirm(session, verdict.note)
        for place in self._places:
            place.census.count(place, weight.numel())
        weights = Weights(
            weight,
            weight,
            levels.granularity,
            owner,
            phase=look.phase,
            step=session.step,
            detailed=session.detailed,
            most_tracked=session.track_weights,
            place=self._place,
            levels=levels,
        )
        whole = Counts({})
        for instrument in self._instruments:
            whole.include(instrument.read(weights))
        self._counted[look.phase] = whole

    @property
    def _place(self) -> Place | None:
        """Where the sum stands: where its kernels do."""
        if not self._places:
            return None
        first, last = (any(getattr(p, end) for p in self._places) for end in ("first", "last"))
        return replace(self._places[0], first=first, last=last)

    def _confirm(self, session: Session, note: str) -> None:
        one, other = self._one(), self._other()
        if self._confirmed or one is None or other is None:
            return
        self._confirmed = True
        layer: Layer = replace(
            one.layer, name=self.name, kind="ternary", note=f"sum of two binary kernels, {note}"
        )
        session.confirm(layer)
        for observer, suffix in ((one, self.name.removeprefix(one.layer.name)), (other, "")):
            if (module := observer.owner) is not None:
                _halves[module] = suffix

    def add_to(self, counts: Counts, observer: Half, phase: str) -> None:
        """Hand over what was counted of the sum, with the first kernel."""
        if observer is not self._one():
            return
        self._waiting = None
        counted = self._counted.pop(phase, None)
        if counted is not None:
            if self._places and "weights" in counted.tables:
                counted.tables["weights"]["n_ternary_weights"] = self._places[0].census.n_ternary
            counts.sites[self.name.removeprefix(observer.layer.name)] = counted


def part_pairs(left: Collection[Half]) -> None:
    """Undo the pairs of which only one kernel is left in the model."""
    for one in left:
        if one.pair is not None and not all(any(x is h for x in left) for h in one.pair.halves):
            one.pair = None
            if one.owner is not None:
                _halves.pop(one.owner, None)


def likely(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names that differ in their last letter only, such as `conv_1` and `conv_2`."""
    known = set(names)
    for name in known:
        match = _FIRST.fullmatch(name)
        if match and (second := match[1] + _SECOND[match[2]]) in known:
            yield name, second


def make_pairs(observers: Mapping[str, Half], given: Iterable[tuple[str, str]]) -> list[Pair]:
    """Pairs of those that the user names, and of those whose names suggest it."""
    made: list[Pair] = []
    for one, other in (*given, *likely(observers)):
        a, b = observers.get(one), observers.get(other)
        if a is None or b is None or a.pair is not None or b.pair is not None:
            continue
        made.append(Pair(a, b))
    return made
