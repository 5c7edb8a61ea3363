"""Where time and batch are in a spike tensor.

Written as `TB*`, `B*`, `BT*` or `B*T`: T is time, B the batch, * the neuron's own axes, any number
of them. A neuron is one index of *; an observation of it is one index of T and B. What is found out
and not written by a user may have a `?`, one axis of the neurons before that of time: `B?T*`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor

from .surrogate import output_shape


_LEADING = (0, 1)
_MOST_HOPS = 8
_KEEPS_SHAPE = ("Mul", "Div", "Neg", "Add", "Sub", "Rsub", "Clone", "ToCopy", "NativeDropout")


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


def infer_axes(
    spikes: Tensor, nodes: Sequence[Any], tell: Callable[[str], None] | None = None
) -> str:
    """Axes of the output of a neuron that nobody described, from the autograd graph.

    A stack of time steps tells where their axis is. Otherwise, a loop over time leaves one node of
    the surrogate for each step, whose shape lacks the axis of time; the first may have none, where
    a neuron fires before it integrates. A single node of the output's own shape is a call for one
    time step.

    Args:
        spikes: What the neuron returned.
        nodes: The surrogate's nodes behind that. Without any, only a stack tells.
        tell: Is told what is not certain.
    """
    shape = list(spikes.shape)
    time = _stacked_at(spikes, hops=_MOST_HOPS if nodes else 1)
    if time is not None and _are_steps(nodes, shape, time):
        return _written(time, len(shape))
    step = list(output_shape(nodes[0])) if nodes else shape
    if len(nodes) < 2 or len(step) != len(shape) - 1:
        return "B*"
    fits = [
        time
        for time in range(len(shape))
        if shape[:time] + shape[time + 1 :] == step and _is_loop(len(nodes), shape[time])
    ]
    if not fits:
        return "B*"
    first = min(fits, key=lambda time: (time > 1, time != len(shape) - 1, time))
    axes = _written(first, len(shape))
    if len(fits) > 1 and tell is not None:
        tell(
            f"which axis of {shape} is that of time cannot be told from the graph: it is read as "
            f"{axes!r}; if it is another one, name it: attach(layers={{name: 'BT*'}})"
        )
    return axes


def _written(time: int, rank: int) -> str:
    return {0: "TB*", 1: "BT*", rank - 1: "B*T"}.get(time, f"B{'?' * (time - 1)}T*")


def _is_loop(n_nodes: int, n_steps: int) -> bool:
    """Whether so many nodes are some for each time step, the first one aside, perhaps."""
    return (n_steps > 0 and n_nodes % n_steps == 0) or (
        n_steps > 2 and n_nodes % (n_steps - 1) == 0
    )


def _are_steps(nodes: Sequence[Any], shape: list[int], time: int) -> bool:
    """Whether what was stacked is as large as what each node made."""
    size = math.prod(shape[:time] + shape[time + 1 :])
    return not nodes or any(math.prod(output_shape(node)) == size for node in nodes)


def _stacked_at(spikes: Tensor, *, hops: int) -> int | None:
    """The dimension of a tensor that a stack has made; None if none did.

    Looked for behind operations that keep the shape, and those that swap dimensions; `hops` of all.
    """
    rank, node = spikes.dim(), spikes.grad_fn
    dims: list[int] | None = list(range(rank))  # of the node's output, by those of the spikes
    for _ in range(hops):
        if node is None or dims is None or len(_shape_of(node)) != rank:
            break
        if node.name().startswith(("Stack", "Cat")):
            time = dims.index(_signed(node._saved_dim, rank))  # ty: ignore[missing-attribute]
            return time if _is_of_steps(node, spikes.shape[time]) else None
        dims = _dims_behind(node, dims, rank)
        node = next((parent for parent, _ in node.next_functions if parent is not None), None)
    return None


def _dims_behind(node: Any, dims: list[int], rank: int) -> list[int] | None:
    """Dimensions of what a node was given, by those of what it made; None if they are others."""
    name = node.name()
    if name.startswith("Transpose"):
        swapped = [_signed(d, rank) for d in (node._saved_dim0, node._saved_dim1)]
        swap = dict(zip(swapped, reversed(swapped), strict=True))
        return [swap.get(d, d) for d in dims]
    if name.startswith("Permute"):
        return [_signed(node._saved_dims[d], rank) for d in dims]
    return dims if name.startswith(_KEEPS_SHAPE) else None


def _shape_of(node: Any) -> tuple[int, ...]:
    known = getattr(node, "_input_metadata", None)
    return tuple(known[0].shape) if known else ()


def _is_of_steps(node: Any, n_steps: int) -> bool:
    """Whether each tensor that was put together is one index of the axis."""
    parents = [parent for parent, _ in node.next_functions]
    return node.name().startswith("Stack") or (
        len(parents) == n_steps
        and all(p is None or p.name().startswith("Unsqueeze") for p in parents)
    )


def _signed(dim: int, rank: int) -> int:
    return dim + rank - 2**64 if dim >= 2**63 else dim  # unsigned, as C++ keeps −1
