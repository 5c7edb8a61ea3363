"""Where time and batch are in a spike tensor.

Written as `TB*`, `B*`, `BT*` or `B*T`: T is time, B the batch, * the neuron's own axes, any number
of them. A neuron is one index of *; an observation of it is one index of T and B. What is found out
and not written by a user may have a `?`, one axis of the neurons before that of time: `B?T*`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache


_LEADING = (0, 1)


@dataclass(frozen=True)
class Axes:
    """Axes of a tensor of known rank.

    Attributes:
        dims: Dimensions of time and batch.
        time: The dimension of time, if the tensor has one.
    """

    dims: tuple[int, ...]
    time: int | None

    @classmethod
    @lru_cache(maxsize=256)
    def parse(cls, axes: str, *, rank: int) -> "Axes":
        """Axes of a tensor with `rank` dimensions.

        Where there are fewer dimensions than letters, leading letters are left out: a neuron that
        is called without a batch gives [*], a sequence without a batch [T, *].
        """
        before, _, after = axes.partition("*")
        if "?" in before and rank < len(axes):
            before = before.lstrip("B")
        elif rank < len(axes):
            kept = max(0, rank - 1 - len(after))
            before = "T"[:kept] if "T" in before else before[:kept]
        letters = [*enumerate(before), *enumerate(after, start=rank - len(after))]
        time = next((d for d, letter in letters if letter == "T"), None)
        return cls(tuple(d for d, letter in letters if letter != "?"), time)

    def neurons(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the neurons in a tensor of that shape."""
        dims, n_dims = self.dims, len(self.dims)
        if dims == _LEADING[:n_dims]:  # nearly always, and it is asked for each call
            return tuple(shape[n_dims:])
        return tuple(n for d, n in enumerate(shape) if d not in dims)

    def one_step(self, shape: Sequence[int]) -> "Step | None":
        """What one time step of a tensor of that shape looks like; None without an axis of time."""
        time = self.time
        if time is None:
            return None
        dims = tuple(d - (d > time) for d in self.dims if d != time)
        return Step(tuple(n for d, n in enumerate(shape) if d != time), dims)


@dataclass(frozen=True)
class Step:
    """One time step of a sequence: its shape, and its dimensions of the batch."""

    shape: tuple[int, ...]
    dims: tuple[int, ...]
