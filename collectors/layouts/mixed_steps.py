"""Whether weights mix what stands along the first axis of a layer's output: it is time then.

A parallel spiking neuron (Fang et al. 2023, arXiv:2304.12760) has no loop: a learned T × T matrix,
or a convolution, takes the charges of all time steps to all potentials at once. Samples are never
mixed, so an axis along which this happens is not that of the batch.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .inferred_axes import dims_behind, shape_of


_MOST_NODES = 64
# A matrix may be put together of a few weights, row by row.
_MOST_OF_WEIGHTS = 512
_PRODUCTS = ("MmBackward", "AddmmBackward", "BmmBackward", "BaddbmmBackward")
_ELEMENTWISE = ("Mul", "Div", "Neg", "Add", "Sub", "Rsub", "Clone", "ToCopy")
_RESHAPES = ("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Alias")


@dataclass(frozen=True)
class Flattened:
    """Time first, and in the other axis the batch together with the neurons.

    Attributes:
        neurons: Shape of the neurons.
    """

    neurons: tuple[int, ...]
    axes: str = "TB*"

    def fits(self, x: Tensor) -> bool:
        """Whether samples of such neurons may be in it."""
        return x.dim() == 2 and x.shape[1] % math.prod(self.neurons) == 0

    def unfold(self, x: Tensor) -> Tensor:
        """A view in which batch and neurons have axes of their own."""
        return x.unflatten(1, (-1, *self.neurons))


def find_mixed(spikes: Tensor, tell: Callable[[str], None]) -> str | Flattened | None:
    """Axes of spikes whose time steps weights have mixed; None where none have.

    Of an output with one more axis, the neurons are told from what was flattened before the mixing.
    Where that does not show, the first axis may be that of the neurons: `tell` is told.
    """
    mixing = next(_mixing(spikes), None)
    if mixing is None or spikes.dim() < 2:
        return None
    if spikes.dim() > 2:
        return "TB*"
    source = mixing.next_functions[-1][0]
    before = tuple(getattr(source, "_saved_self_sym_sizes", ()))
    is_of_spikes = before[:1] == spikes.shape[:1] and math.prod(before) == spikes.numel() > 0
    if is_of_spikes and len(before) > 2:
        return Flattened(before[2:])
    tell(
        f"weights mix what stands along the first axis of {list(spikes.shape)}, so it is not that "
        "of the batch; whether it is time, and where the batch is, cannot be told. It is read as "
        "'B*'; name the layer that returns [T, B, …] instead: attach(layers={name: 'TB*'})"
    )
    return None


def _mixing(spikes: Tensor) -> Iterator[Any]:
    """The nodes behind spikes that mix along their first axis, nearest first."""
    n = spikes.shape[0] if spikes.dim() else 0
    seen: set[Any] = set()
    todo: list[tuple[Any, int]] = [(spikes.grad_fn, 0)]
    for node, axis in todo:  # which grows
        shape = shape_of(node)
        if n < 2 or node in seen or axis >= len(shape) or shape[axis] != n:
            continue
        seen.add(node)
        if _mixes(node, axis, shape):
            yield node
        elif len(todo) < _MOST_NODES:
            todo += [
                (parent, before)
                for parent, _ in node.next_functions
                if (before := _axis_before(node, axis, shape, shape_of(parent))) is not None
            ]


def _mixes(node: Any, axis: int, shape: tuple[int, ...]) -> bool:
    """Whether a node is a product along an axis with a square matrix, or a convolution along it."""
    name, parents = node.name(), [parent for parent, _ in node.next_functions]
    if name.startswith(_PRODUCTS):
        left, right = parents[-2:]
        matrix = {len(shape) - 2: left, len(shape) - 1: right}.get(axis)
        return shape_of(matrix)[-2:] == (shape[axis], shape[axis]) and _is_of_weights(matrix)
    if name.startswith("Convolution"):
        kernel = shape_of(parents[1])
        return axis > 1 and len(kernel) == len(shape) and kernel[axis] > 1
    return False


def _is_of_weights(matrix: Any) -> bool:
    """Whether a matrix is a parameter, or made of some; one of inputs has been through a layer."""
    seen, todo = {matrix}, [matrix]
    for node in todo:  # which grows
        if node.name().startswith((*_PRODUCTS, "Convolution", "NativeBatchNorm")):
            return False
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen and len(seen) < _MOST_OF_WEIGHTS:
                seen.add(parent)
                todo.append(parent)
    return any(hasattr(node, "variable") for node in seen)


def _axis_before(
    node: Any, axis: int, shape: tuple[int, ...], before: tuple[int, ...]
) -> int | None:
    """Where an axis of a node's output is in what one parent made; None if it is not followed."""
    name, rank = node.name(), len(shape)
    if name.startswith(("Transpose", "Permute")):
        moved = dims_behind(node, [axis], rank)
        return None if moved is None else moved[0]
    if name.startswith(_RESHAPES):
        ahead = math.prod(shape[:axis])
        able = (
            i for i, n in enumerate(before) if n == shape[axis] and math.prod(before[:i]) == ahead
        )
        return next(able, None)
    if name.startswith(_ELEMENTWISE) or hasattr(node, "_forward_cls"):
        aligned = axis - (rank - len(before))  # a bias has fewer axes
        return aligned if aligned >= 0 else None
    return None
