"""Where time and batch are in a spike tensor.

Written as `TB*`, `B*`, `BT*` or `B*T`: T is time, B the batch, * the neuron's own axes, any number
of them. A neuron is one index of *; an observation of it is one index of T and B.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .surrogate import output_shape


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
    def parse(cls, axes: str, *, rank: int) -> "Axes":
        """Axes of a tensor with `rank` dimensions.

        Where there are fewer dimensions than letters, leading letters are left out: a neuron that
        is called without a batch gives [*], a sequence without a batch [T, *].
        """
        before, _, after = axes.partition("*")
        if rank < len(axes):
            kept = max(0, rank - 1 - len(after))
            before = "T"[:kept] if "T" in before else before[:kept]
        letters = [*enumerate(before), *enumerate(after, start=rank - len(after))]
        time = next((d for d, letter in letters if letter == "T"), None)
        return cls(tuple(d for d, _ in letters), time)

    def dims_of_one_step(self, whole: Sequence[int], step: Sequence[int]) -> list[int] | None:
        """Dimensions of the batch in a tensor of one time step; None if it is not one."""
        if self.time is None:
            return None
        if [n for d, n in enumerate(whole) if d != self.time] != list(step):
            return None
        return [d - (d > self.time) for d in self.dims if d != self.time]


def infer_axes(spikes: Tensor, nodes: Sequence[Any]) -> str:
    """Axes of the output of a neuron that nobody described, from its surrogate nodes.

    A loop over time leaves one node for each step, whose shape lacks the axis of time. A single
    node of the output's own shape is a call for one time step.
    """
    shape, n_nodes = list(spikes.shape), len(nodes)
    step = list(output_shape(nodes[0])) if nodes else shape
    if n_nodes > 1 and len(step) == len(shape) - 1:
        for axes, time in (("TB*", 0), ("BT*", 1), ("B*T", len(shape) - 1)):
            if shape[:time] + shape[time + 1 :] == step and n_nodes % shape[time] == 0:
                return axes
    return "B*"
