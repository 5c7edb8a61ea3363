"""Where time is in the output of a neuron that nobody described, from the autograd graph."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from spikewatch.layers import own_type

from .inner_loops import loops, returned_axis, steps_held
from .surrogate import output_shape, surrogate_nodes


_MOST_HOPS = 8
_LEAST_RANK = 3  # of a sequence of batches of neurons
_KEEPS_SHAPE = ("Mul", "Div", "Neg", "Add", "Sub", "Rsub", "Clone", "ToCopy", "NativeDropout")
_FLATTENS = ("View", "UnsafeView", "ReshapeAlias")


class Inferred:
    """The axes of one layer's output: named by hand, or found out as soon as a graph tells."""

    def __init__(
        self,
        axes: str,
        tell: Callable[[str], None],
        module: Callable[[], nn.Module | None],
        widths: Collection[int],
    ) -> None:
        """Take axes that were named by hand, or "", and what else may tell them.

        Who is told what is not certain; the layer, if it is a module; and how many outputs the
        model's layers with weights have, which are channels or neurons.
        """
        self._axes = axes
        self._folded: Folded | None = None
        self._looked = False  # at a neuron of which a library tells the axes
        self._tell = tell
        self._module = module
        self._widths = widths

    def layout(self, spikes: Tensor) -> tuple[str, Callable[[Tensor], Tensor] | None]:
        """Axes of an output, and what unfolds time and batch where they share one."""
        if not self._axes and spikes.requires_grad:
            self._look(spikes)
        folded = self._folded
        if folded is None:
            return self._axes or "B*", None
        return (folded.axes, folded.unfold) if folded.fits(spikes) else ("B*", None)

    def layout_beside(
        self, axes: str, spikes: Tensor
    ) -> tuple[str, Callable[[Tensor], Tensor] | None]:
        """The same of a class that a user derived from one whose axes the library knows.

        Its forward may loop over time where the library would not, or fold time into the batch.
        """
        if not self._looked and spikes.requires_grad:
            self._look_beside(axes, spikes)
        folded = self._folded
        if folded is not None and folded.fits(spikes):
            return folded.axes, folded.unfold
        return (self._axes or axes if axes == "B*" else axes), None

    def _look_beside(self, axes: str, spikes: Tensor) -> None:
        nodes = surrogate_nodes(spikes)
        folded = find_folded(spikes, nodes)
        if folded is not None and folded.n_steps == len(spikes):
            return  # a batch of one, or slices of a sequence that were put together again
        self._looked, self._folded = True, folded
        if folded is None and nodes and axes == "B*":
            self._axes = infer_axes(spikes, nodes, self._tell)

    def _look(self, spikes: Tensor) -> None:
        nodes = surrogate_nodes(spikes)
        self._folded = find_folded(spikes, nodes)
        if self._folded is not None:
            self._axes = self._folded.axes
            return
        axes = infer_axes(spikes, nodes, self._tell)
        if axes == "B*" and nodes:
            axes = self._look_inside(spikes, nodes)
        self._axes = axes if nodes or axes != "B*" else ""

    def _look_inside(self, spikes: Tensor, nodes: Sequence[Any]) -> str:
        """Axes of what a function made that may itself have looped over time."""
        shape = spikes.shape
        function = nodes[0]._forward_cls
        module = self._module()
        cls = None if module is None else own_type(module)
        if len(shape) < _LEAST_RANK or not loops(function, cls):
            return "B*"
        time = _time_inside(spikes, nodes)
        if time is None:
            steps = set[int]() if module is None else steps_held(module) - {*self._widths}
            fits = [axis for axis, n in enumerate(shape) if n in steps]
            time = fits[0] if len(fits) == 1 else None
        if time is not None:
            return _written(time, len(shape))
        self._tell(
            f"{function.__name__} loops, perhaps over time: which axis of {list(shape)} would be "
            "that of time cannot be told. It is read as one time step of a batch, 'B*'; if it is "
            "more, name its axes: attach(layers={name: 'TB*'})"
        )
        return "B*"


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


def find_folded(spikes: Tensor, nodes: Sequence[Any]) -> Folded | None:
    """Whether the neuron loops over time, and puts the steps together along the batch's axis.

    As where the layers around it know of no time, and a neuron takes it out of the batch and puts
    it back there. The loop leaves nodes of the surrogate that are as large as a part of the batch.
    """
    shape = tuple(spikes.shape)
    step = tuple(output_shape(nodes[0])) if len(nodes) > 1 else ()
    if not step or len(step) != len(shape) or step[1:] != shape[1:] or step[0] == 0:
        return None
    n_steps, rest = divmod(shape[0], step[0])
    if rest or n_steps < 2 or not _is_loop(len(nodes), n_steps):
        return None
    flat = _behind(spikes.grad_fn)
    stacked = None
    if flat is not None and flat.name().startswith(_FLATTENS):
        before = _behind(flat.next_functions[0][0])
        if before is not None:
            stacked = _stacked_at(before, _shape_of(before), hops=_MOST_HOPS)
    return Folded("BT*" if stacked == 1 else "TB*", n_steps)


def _behind(node: Any) -> Any:
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


def _stacked_at(node: Any, shape: Sequence[int], *, hops: int) -> int | None:
    """The dimension of a node's output that a stack has made; None if none did.

    Looked for behind operations that keep the shape, and those that swap dimensions; `hops` of all.
    """
    rank = len(shape)
    for behind, dims in _with_dims(node, rank, hops=hops):
        if behind.name().startswith(("Stack", "Cat")):
            time = dims.index(_signed(behind._saved_dim, rank))
            return time if _is_of_steps(behind, shape[time]) else None
    return None


def _time_inside(spikes: Tensor, nodes: Sequence[Any]) -> int | None:
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
        if node is None or dims is None or len(_shape_of(node)) != rank:
            break
        yield node, dims
        dims = _dims_behind(node, dims, rank)
        node = next((parent for parent, _ in node.next_functions if parent is not None), None)


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
