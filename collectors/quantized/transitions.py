"""Which weights change their level: flips, reversals, and zeros that stay zeros.

One byte a weight holds all that has to be remembered of it:

    bits 0–1  its level at the last look: 0 for −1, 1 for 0, 2 for +1
    bits 2–3  the direction of its last change: 0 none yet, 1 down, 2 up
    bits 4–5  whether it was zero when a cohort of zeros was taken, and at every look since; there
              are two cohorts, taken anew in turn, so that one of them always is old enough
    bits 6–7  whether it turned back in this half of the window of oscillation, and in the other

A look is a table look-up: byte and new level make one of 768 cases; a case has one next byte, and
all counters are sums over the numbers of weights in each case.
"""

from functools import cache

import torch
from torch import Tensor

from spikewatch.metrics.transitions import COHORT_STEPS, OSCILLATION_STEPS
from spikewatch.observing import Counts

from .level_sums import count_places
from .pieces import Buffer
from .reading import WeightInstrument, Weights


_N_CASES = 256 * 3
_LEVEL, _DIRECTION, _COHORTS, _NOW, _BEFORE = 0, 2, (4, 5), 6, 7
_SUMS = (
    "n_flips",
    "n_reversals",
    "n_live",
    "n_live_flips",
    "n_never_flipped",
    "n_oscillating",
    "retained_0",
    "retained_1",
    "n_zero",
)


class Transitions(WeightInstrument):
    """Follows the levels of a layer's weights from one observed training step to the next."""

    def __init__(self) -> None:
        self._state: Tensor | None = None
        self._step = 0
        self._half_began = 0  # step at which this half of the window of oscillation began
        self._n_halves = 0
        self._taken: list[int | None] = [0, None]  # step at which each cohort was taken
        self._sizes: list[Tensor | None] = [None, None]
        self._oscillating: Tensor | None = None
        self._quiet: Tensor | None = None

    def read(self, weights: Weights) -> Counts | None:
        """Counters of `transitions`; None at the first look, and in evaluation."""
        if weights.phase != "train":
            return None
        n, step, device = weights.n_followed, weights.step, weights.quantized.device
        state = self._state
        if state is None or state.numel() != n:
            self._begin(weights)
            return None
        if step <= self._step:
            return None
        if state.device != device:
            self._move(device)
        gap, self._step = step - self._step, step
        anew, rolls = self._choose(step)
        sums = dict(zip(_SUMS, self._advance(weights, anew=anew, rolls=rolls), strict=True))
        for cohort in range(2):
            if anew[cohort]:
                self._taken[cohort], self._sizes[cohort] = step, sums["n_zero"]
        if rolls:
            self._half_began, self._n_halves = step, self._n_halves + 1
            self._oscillating = sums["n_oscillating"] if self._n_halves >= 2 else None
        counters = self._counters(sums, n, gap)
        return Counts({"transitions": counters | {"n_followed_of": weights.quantized.numel()}})

    def _counters(self, sums: dict[str, Tensor], n: int, gap: int) -> dict:
        slots = n * gap
        quiet = torch.zeros_like(sums["n_flips"]) if self._quiet is None else self._quiet
        self._quiet = (quiet + slots) * (sums["n_flips"] == 0)
        age, cohort = max(
            (self._step - taken, c) for c, taken in enumerate(self._taken) if taken is not None
        )
        return {
            "n_tracked": n,
            "look_gap_steps": gap,
            "n_flip_slots": slots,
            "n_flips": sums["n_flips"],
            "n_reversals": sums["n_reversals"],
            "n_live_slots": sums["n_live"] * gap,
            "n_live_flips": sums["n_live_flips"],
            "n_never_flipped": sums["n_never_flipped"],
            "slots_since_flip": self._quiet,
            "n_oscillating": self._oscillating,
            "n_cohort": self._sizes[cohort],
            "n_retained": sums[f"retained_{cohort}"] if age else self._sizes[cohort],
            "cohort_age_steps": age,
        }

    def _begin(self, weights: Weights) -> None:
        self.__init__()
        step, device = weights.step, weights.quantized.device
        state = self._state = torch.empty(weights.n_followed, dtype=torch.uint8, device=device)
        n_zero = torch.zeros((), dtype=torch.float64, device=device)
        reader, done = _LevelReader(), 0
        for some in weights.followed():
            level, bytes_ = reader.read(some), state[done : (done := done + len(some))]
            zero = torch.eq(level, 1, out=bytes_)
            n_zero += zero.sum()
            zero.mul_(1 << _COHORTS[0]).add_(level)
        self._step = self._half_began = step
        self._taken = [step, None]
        self._sizes = [n_zero, None]

    def _move(self, device: torch.device) -> None:
        def moved(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device)

        self._state, self._quiet = moved(self._state), moved(self._quiet)
        self._oscillating = moved(self._oscillating)
        self._sizes = [moved(x) for x in self._sizes]

    def _choose(self, step: int) -> tuple[tuple[bool, bool], bool]:
        """Which cohorts are taken anew at this step, and whether the window's half ends."""
        ages = [None if taken is None else step - taken for taken in self._taken]
        anew = []
        for mine, others in (ages, ages[::-1]):
            if mine is None:
                anew.append(others is not None and others >= COHORT_STEPS)
            else:
                old_enough = others is not None and others >= COHORT_STEPS
                anew.append(mine >= 2 * COHORT_STEPS and old_enough and mine > (others or 0))
        return (anew[0], anew[1]), step - self._half_began >= OSCILLATION_STEPS // 2

    def _advance(self, weights: Weights, *, anew: tuple[bool, bool], rolls: bool) -> Tensor:
        """Put the new levels into the state; the sums of `_SUMS`, float64."""
        state = self._state
        assert state is not None  # noqa: S101 - `read` began one
        following, counted = _tables(anew, rolls, state.device)
        cases = torch.zeros(_N_CASES, dtype=torch.float64, device=state.device)
        reader, buffer, done = _LevelReader(), Buffer(torch.int64), 0
        for some in weights.followed():
            bytes_ = state[done : (done := done + len(some))]
            case = buffer.like(bytes_).copy_(bytes_).mul_(3).add_(reader.read(some))
            torch.take(following, case, out=bytes_)
            cases += count_places(case, _N_CASES)
        return cases @ counted


class _LevelReader:
    """Reads levels into memory of its own."""

    def __init__(self) -> None:
        self._above, self._below = Buffer(torch.uint8), Buffer(torch.uint8)

    def read(self, weights: Tensor) -> Tensor:
        """0 for negative weights, 1 for zeros (and NaN), 2 for positive ones: uint8."""
        above = torch.gt(weights, 0, out=self._above.like(weights))
        return above.add_(1).sub_(torch.lt(weights, 0, out=self._below.like(weights)))


@cache
def _tables(anew: tuple[bool, bool], rolls: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """The next byte of each case, uint8 [768], and what it counts for, float64 [768, sums]."""
    rows = [_case(byte, new, anew, rolls) for byte in range(256) for new in range(3)]
    following = torch.tensor([byte for byte, _ in rows], dtype=torch.uint8, device=device)
    counted = torch.tensor([sums for _, sums in rows], dtype=torch.float64, device=device)
    return following, counted


def _case(
    byte: int, new: int, anew: tuple[bool, bool], rolls: bool
) -> tuple[int, tuple[bool, ...]]:
    old, direction = byte >> _LEVEL & 3, byte >> _DIRECTION & 3
    flipped, live = new != old, old != 1
    went = direction if not flipped else (2 if new > old else 1)
    reversed_ = flipped and direction != 0 and went != direction
    kept = [bool(byte >> bit & 1) and new == 1 for bit in _COHORTS]
    now = bool(byte >> _NOW & 1) or reversed_
    before = bool(byte >> _BEFORE & 1)
    sums = (
        flipped,
        reversed_,
        live,
        live and flipped,
        went == 0,
        now or before,
        *kept,
        new == 1,
    )
    kept = [new == 1 if a else k for a, k in zip(anew, kept, strict=True)]
    halves = (False, now) if rolls else (now, before)
    following = (
        new << _LEVEL
        | went << _DIRECTION
        | kept[0] << _COHORTS[0]
        | kept[1] << _COHORTS[1]
        | halves[0] << _NOW
        | halves[1] << _BEFORE
    )
    return following, sums
