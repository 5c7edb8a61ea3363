"""Where time is in the output of a neuron that nobody described, from the autograd graph."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..surrogate import output_shape
from .inner_loops import returned_axis


_MOST_HOPS = 8
_KEEPS_SHAPE = ("Mul", "Div", "Neg", "Add", "Sub", "Rsub", "Clone", "ToCopy", "NativeDropout")
_FLATTENS = ("View", "UnsafeView", "ReshapeAlias")


@dataclass(frozen=True)
class Folded:
    """Time and batch in one axis, the first.

    Attributes:
        axes: `TB*` where a time step's samples lie together, `BT*` where a sample's time steps do.
        n_steps: How many time steps.
    """

    axes: str
    n_steps: int

    def fits(self, x: Tensor) -> bool:
        """Whether so many time steps may be in it."""
        return x.dim() > 0 and len(x) % self.n_steps == 0

    def unfold(self, x: Tensor) -> Tensor:
        """A view in which time and batch have axes of their own."""
        n = self.n_steps
        return x.unflatten(0, (n, -1) if self.axes == "TB*" else (-1, n))


def find_folded(
    spikes: Tensor, nodes: Sequence[Any], before: Folded | None = None
) -> Folded | None:
    """Whether the neuron loops over time, and puts the steps together along the batch's axis.

    As where the layers around it know of no time, and a neuron takes it out of the batch and puts
    it back there. The loop leaves nodes of the surrogate that are as large as a part of the batch.

    Args:
        spikes: What the neuron returned.
        nodes: The surrogate's nodes behind that.
        before: How it was folded the last time. A single node is one time step of such a neuron.
    """
    shape = tuple(spikes.shape)
    if before is not None and (not nodes or [*map(output_shape, nodes)] == [shape]):
        return replace(before, n_steps=1) if nodes else before
    step = tuple(output_shape(nodes[0])) if len(nodes) > 1 else ()
    if not step or len(step) != len(shape) or step[1:] != shape[1:] or step[0] == 0:
        return None
    n_steps, rest = divmod(shape[0], step[0])
    if rest or n_steps < 2 or not _is_loop(len(nodes), n_steps):
        return None
    flat = behind(spikes.grad_fn)
    stacked = None
    if flat is not None and flat.name().startswith(_FLATTENS):
        stack = behind(flat.next_functions[0][0])
        if stack is not None:
            stacked = _stacked_at(stack, shape_of(stack), hops=_MOST_HOPS)
    return Folded("BT*" if stacked == 1 else "TB*", n_steps)


def behind(node: Any) -> Any:
    """The first node that does more than go over the elements."""
    for _ in range(_MOST_HOPS):
        if node is None or not node.name().startswith(_KEEPS_SHAPE):
            break
        node = next((parent for parent, _ in node.next_functions if parent is not None), None)
    return node


def infer_axes(
    spikes: Tensor, nodes: Sequence[Any], tell: Callable[[str], None] | None = None
) -> str:
    """Axes of the output of a neuron that nobody described, from the autograd graph.

    A stack of time steps tells where their axis is. Otherwise, a loop over time leaves one node of
    the surrogate for each step, whose shape lacks the axis of time; the first may have none, where
    a neuron fires before it integrates. A single node of the output's own shape is a call for one
    time step, unless the function's own code loops over time.

    Args:
        spikes: What the neuron returned.
        nodes: The surrogate's nodes behind that. Without any, only a stack tells.
        tell: Is told what is not certain.
    """
    shape = list(spikes.shape)
    time = _stacked_at(spikes.grad_fn, shape, hops=_MOST_HOPS if nodes else 1)
    if time is not None and _are_steps(nodes, shape, time):
        return write_axes(time, len(shape))
    step = list(output_shape(nodes[0])) if nodes else shape
    if not nodes or len(step) != len(shape) - 1:
        return "B*"
    if len(nodes) == 1:
        return _of_one_step(spikes, step)
    fits = [
        time
        for time in range(len(shape))
        if shape[:time] + shape[time + 1 :] == step and _is_loop(len(nodes), shape[time])
    ]
    if not fits:
        return "B*"
    first = min(fits, key=lambda time: (time > 1, time != len(shape) - 1, time))
    axes = write_axes(first, len(shape))
    if len(fits) > 1 and tell is not None:
        tell(
            f"which axis of {shape} is that of time cannot be told from the graph: it is read as "
            f"{axes!r}; if it is another one, name it: attach(layers={{name: 'BT*'}})"
        )
    return axes


def _of_one_step(spikes: Tensor, step: Sequence[int]) -> str:
    """Axes of a sequence of a single time step of that shape, if it was written into one."""
    written, shape = behind(spikes.grad_fn), [*spikes.shape]
    if written is None or "CopySlices" not in written.name():
        return "B*"
    fits = [t for t, n in enumerate(shape) if n == 1 and shape[:t] + shape[t + 1 :] == [*step]]
    return write_axes(fits[0], len(shape)) if len(fits) == 1 else "B*"


def write_axes(time: int, rank: int) -> str:
    """Axes of which that number is time: of further ones the first is the batch."""
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


def _stacked_at(node: Any, shape: Sequence[int], *, hops: int) -> int | None:
    """The dimension of a node's output that a stack has made; None if none did.

    Looked for behind operations that keep the shape, and those that swap dimensions; `hops` of all.
    """
    rank = len(shape)
    for made, dims in _with_dims(node, rank, hops=hops):
        if made.name().startswith(("Stack", "Cat")):
            time = dims.index(_signed(made._saved_dim, rank))
            return time if _is_of_steps(made, shape[time]) else None
    return None


def time_inside(spikes: Tensor, nodes: Sequence[Any]) -> int | None:
    """The dimension along which the function that made the spikes has put time steps together."""
    rank = spikes.dim()
    for node, dims in _with_dims(spikes.grad_fn, rank, hops=_MOST_HOPS):
        if node in nodes:
            axis = returned_axis(node._forward_cls, rank=rank)
            return None if axis is None else dims.index(axis)
    return None


def _with_dims(node: Any, rank: int, *, hops: int) -> Iterator[tuple[Any, list[int]]]:
    """The nodes behind one, each with the dimensions of its output, by those of the first one's."""
    dims: list[int] | None = list(range(rank))
    for _ in range(hops):
        if node is None or dims is None or len(shape_of(node)) != rank:
            break
        yield node, dims
        dims = dims_behind(node, dims, rank)
        node = next((parent for parent, _ in node.next_functions if parent is not None), None)


def dims_behind(node: Any, dims: list[int], rank: int) -> list[int] | None:
    """Dimensions of what a node was given, by those of what it made; None if they are others."""
    name = node.name()
    if name.startswith("Transpose"):
        swapped = [_signed(d, rank) for d in (node._saved_dim0, node._saved_dim1)]
        swap = dict(zip(swapped, reversed(swapped), strict=True))
        return [swap.get(d, d) for d in dims]
    if name.startswith("Permute"):
        return [_signed(node._saved_dims[d], rank) for d in dims]
    return dims if name.startswith(_KEEPS_SHAPE) else None


def shape_of(node: Any) -> tuple[int, ...]:
    """Shape of what a node has made; () where that is not known."""
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
