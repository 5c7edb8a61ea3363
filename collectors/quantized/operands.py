"""Which operands of which functions may be weights, and whether one is the weight in question."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .kernels import is_wrapper
from .levels import blocks_of


Role = Literal["weight", "left", "right", "any"]


class Operand(NamedTuple):
    """A tensor that something was multiplied with.

    Attributes:
        tensor: As it was given, unwrapped.
        role: `weight` where only a weight is given there, outputs first; `left` and `right` sides
            of a matrix product, outputs first and last; `any` where nothing is known.
    """

    tensor: Tensor
    role: Role

    @property
    def is_stack(self) -> bool:
        """Whether it is a stack of matrices, each with inputs and outputs of its own."""
        return self.role in ("left", "right") and self.tensor.dim() == 3


_WEIGHT: tuple[tuple[int, Role], ...] = ((1, "weight"),)
_SIDES: tuple[tuple[int, Role], ...] = ((1, "right"), (0, "left"))
_ADDED: tuple[tuple[int, Role], ...] = ((2, "right"), (1, "left"))
# Positions that may hold a weight, likeliest first.
_PLACES: dict[Callable[..., Any], tuple[tuple[int, Role], ...]] = {
    **dict.fromkeys(
        (
            functional.linear,
            functional.embedding,
            functional.embedding_bag,
            functional.conv1d,
            functional.conv2d,
            functional.conv3d,
            functional.conv_transpose1d,
            functional.conv_transpose2d,
            functional.conv_transpose3d,
            torch.conv1d,
            torch.conv2d,
            torch.conv3d,
            torch.convolution,
        ),
        _WEIGHT,
    ),
    **dict.fromkeys(
        (
            torch.matmul,
            torch.mm,
            torch.bmm,
            torch.mv,
            torch._int_mm,
            torch.Tensor.matmul,
            torch.Tensor.mm,
            torch.Tensor.bmm,
            torch.Tensor.mv,
            torch.Tensor.__matmul__,
        ),
        _SIDES,
    ),
    torch.Tensor.__rmatmul__: ((0, "right"), (1, "left")),
    **dict.fromkeys((torch.addmm, torch.baddbmm, torch.Tensor.addmm, torch.Tensor.baddbmm), _ADDED),
    **dict.fromkeys(
        (torch.Tensor.__getitem__, torch.index_select, torch.Tensor.index_select), ((0, "any"),)
    ),
    torch.einsum: (),
    torch.tensordot: ((1, "any"), (0, "any")),
}
_aten = torch.ops.aten
# The same, below autograd.
_INSIDE: dict[Any, tuple[tuple[int, Role], ...]] = {
    _aten._int_mm.default: _SIDES,
    _aten.mm.default: _SIDES,
    _aten.bmm.default: _SIDES,
    _aten.addmm.default: _ADDED,
    _aten.linear.default: _WEIGHT,
    _aten.convolution.default: _WEIGHT,
    _aten.embedding.default: ((0, "weight"),),
}
# Graph nodes at which a weight ends, and an activation begins.
_PRODUCTS = ("Mm", "Addmm", "Bmm", "Baddbmm", "Convolution", "Linear", "Embedding")
_MOST_NODES = 200


def multiplies(func: Any) -> bool:
    """Whether one operand of the function may be a weight."""
    return func in _PLACES


def multiplies_inside(func: Any) -> bool:
    """Whether one operand of the ATen operation may be a weight."""
    return func in _INSIDE


def operands(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Operand]:
    """Operands that may be weights, likeliest first."""
    if func is torch.einsum:
        yield from _of_einsum(args)
        return
    if func is torch.Tensor.__getitem__ and not _chooses_rows(args[1]):
        return
    for place, role in _PLACES.get(func) or _INSIDE.get(func, ()):
        given = args[place] if place < len(args) else kwargs.get("weight")
        tensor = _matrix(given)
        if tensor is not None:
            yield Operand(tensor, role)


def _chooses_rows(index: Any) -> bool:
    """Whether an index looks up rows, as in an embedding."""
    return isinstance(index, Tensor) and index.dtype in (torch.int64, torch.int32)


def _of_einsum(args: tuple[Any, ...]) -> Iterator[Operand]:
    if not args or not isinstance(args[0], str):
        return
    given = args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:]
    terms, _, result = args[0].replace(" ", "").partition("->")
    for term, part in zip(terms.split(","), given, strict=False):
        tensor = _matrix(part)
        if tensor is None:
            continue
        others = args[0].partition("->")[0].replace(term, "", 1)
        yield Operand(tensor, _side(term, others, result))


def _side(term: str, others: str, result: str) -> Role:
    """Which side of a product a term of an einsum is; of three letters the first is of a batch."""
    if not result or len(term) not in (2, 3) or (len(term) == 3 and term[0] not in result):
        return "any"
    first_is_output, second_is_output = (x in result and x not in others for x in term[-2:])
    if len(term) == 2 or first_is_output != second_is_output:
        return "left" if first_is_output else "right"
    return "any"


def _matrix(given: Any) -> Tensor | None:
    """A matrix of real numbers, or a stack of some; those of state space models are complex."""
    x = _unwrapped(given)
    return None if x is None or x.dim() < 2 or x.is_complex() else x


def _unwrapped(given: Any) -> Tensor | None:
    """A plain tensor of what libraries make of one: brevitas gives a tuple, quanto a type."""
    if not isinstance(given, Tensor):
        given = getattr(given, "value", None)
        return given if isinstance(given, Tensor) else None
    if is_wrapper(given) and "dequantize" in {k for c in _own_classes(given) for k in vars(c)}:
        return given.dequantize()
    return given


def _own_classes(x: Tensor) -> list[type]:
    return [c for c in type(x).__mro__ if not c.__module__.startswith("torch.") and c is not object
            and c is not Tensor and issubclass(c, Tensor)]  # fmt: skip


def fit(operand: Operand, shape: tuple[int, ...]) -> bool:
    """Whether the operand may be a weight of this shape, transposed or reshaped."""
    x = operand.tensor
    if x.shape == shape:
        return True
    if x.dim() != 2 or x.numel() != _size(shape):
        return False
    return shape[0] in x.shape


def outputs_first(operand: Operand, shape: tuple[int, ...]) -> Tensor:
    """A view of the operand with the outputs first, where that is known."""
    x = operand.tensor
    if operand.role == "right" and (x.dim() == 2 or operand.is_stack):
        return x.mT
    if x.dim() == 2 and operand.role == "any" and x.shape != shape:
        return x.t()
    return x


def like(weight: Tensor, latent: Tensor, *, stacked: bool) -> tuple[bool, Tensor] | None:
    """A view of the latent weight, element by element beside the quantized one.

    Args:
        weight: The quantized weight, outputs first.
        latent: As it is kept, of as many elements.
        stacked: Whether it is a stack of matrices.

    Returns:
        Whether it is transposed, and the view; None where there is none.
    """
    if weight.numel() != latent.numel():
        return None
    if (latent.dim() == 2 or stacked) and latent.mT.shape == weight.shape:
        straight = latent.shape == weight.shape
        signs = partial(agreement, weight, stacked=stacked)
        if not straight or signs(latent.mT) > signs(latent):
            return True, latent.mT
    if latent.shape == weight.shape:
        return False, latent
    if latent.shape[0] == weight.shape[0] and latent.is_contiguous():
        return False, latent.view(weight.shape)
    return None


def agreement(weight: Tensor, latent: Tensor, *, stacked: bool = False) -> float:
    """Share of a sample of nonzero weights that have the sign of the latent one."""
    a, b = (blocks_of(x, stacked=stacked).sign() for x in (weight, latent))
    n = a.ne(0).sum()
    return float((a * b == 1).sum() / n.clamp(min=1)) if a.shape == b.shape else 0.0


def comes_from(x: Tensor, latent: Tensor) -> bool | None:
    """Whether a weight was made of this latent one, as the autograd graph says; None if it is mute.

    The graph is followed up to products: what lies behind one is an activation's.
    """
    if shares_memory(x, latent):
        return True
    if x.grad_fn is None:
        return None if not x.requires_grad else x is latent
    todo: list[Any] = [x.grad_fn]
    seen: set[Any] = set()
    while todo and len(seen) < _MOST_NODES:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "variable", None) is latent or node is latent.grad_fn:
            return True
        if not node.name().startswith(_PRODUCTS):
            todo += [n for n, _ in node.next_functions]
    return None if todo else False


def is_made_of_weights(x: Tensor) -> bool:
    """Whether a tensor is a parameter, or made of parameters of its shape: no activation."""
    if isinstance(x, nn.Parameter) or isinstance(x._base, nn.Parameter):
        return True
    if x.dim() < 2:  # a norm of a sample without a batch has a parameter of its shape, too
        return False
    todo: list[Any] = [x.grad_fn]
    seen: set[Any] = set()
    found = False
    while todo and len(seen) < _MOST_NODES:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().startswith(_PRODUCTS):
            return False
        variable = getattr(node, "variable", None)
        found |= isinstance(variable, nn.Parameter) and variable.shape == x.shape
        todo += [n for n, _ in node.next_functions]
    return found


def shares_memory(x: Tensor, latent: Tensor) -> bool:
    """Whether two tensors are the same weights, transposed or not."""
    try:
        return (
            x.numel() == latent.numel()
            and x.device == latent.device
            and x.data_ptr() == latent.data_ptr() != 0
        )
    except RuntimeError:  # no storage: a type of a library's own
        return x is latent


def _size(shape: tuple[int, ...]) -> int:
    n = 1
    for length in shape:
        n *= length
    return n
