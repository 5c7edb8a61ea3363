"""Products that a module makes by itself, read from the call of a function of torch."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Product(NamedTuple):
    """One product of two tensors.

    Attributes:
        sides: What is multiplied; one is left out where it is made inside the function.
        n_products: Multiplications with addition, zeros included.
        n_outputs: Elements of the result.
        weight_places: Which sides may be weights.
        is_batched: Whether both sides have an axis for samples, as activations have.
        convolve: Makes the output of input and weight, where these are convolved.
    """

    sides: tuple[Tensor, ...]
    n_products: int
    n_outputs: int
    weight_places: tuple[int, ...]
    is_batched: bool = False
    convolve: Callable[[Tensor, Tensor], Tensor] | None = None


_Parser = Callable[[Any, tuple[Any, ...], dict[str, Any]], Iterator[Product]]


def products(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Product]:
    """The products of a call; none where it is written in a way that is not read."""
    yield from _PARSERS[func](func, args, kwargs)


def is_product(func: Any) -> bool:
    """Whether a function of torch multiplies matrices."""
    return func in _PARSERS


def _linear(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Product]:
    x, weight = _given(args, kwargs, ("input", "weight"))
    if x is not None and weight is not None and weight.dim() == 2:
        n_rows = x.numel() // max(1, x.shape[-1])
        n = x.numel() * len(weight)
        yield Product((x, weight), n, n_rows * len(weight), (1,))


def _conv(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Product]:
    x, weight = _given(args, kwargs, ("input", "weight"))
    if x is None or weight is None:
        return
    rest = args[3:]
    options = {k: v for k, v in kwargs.items() if k not in ("input", "weight", "bias")}

    def convolve(x: Tensor, weight: Tensor) -> Tensor:
        return func(x, weight, None, *rest, **options)

    meta = (torch.empty(t.shape, device="meta") for t in (x, weight))
    yield Product((x, weight), 0, convolve(*meta).numel(), (1,), convolve=convolve)


def _matmul(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Product]:
    a, b = _given(args, kwargs, ("input", "other"))
    if b is None:
        b = kwargs.get("mat2")
    if a is not None and isinstance(b, Tensor):
        yield _of_matrices(a, b)


def _reversed(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Product]:
    yield from _matmul(_, args[::-1], kwargs)


def _added(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Product]:
    yield from _matmul(_, args[1:], kwargs)


def _of_matrices(a: Tensor, b: Tensor) -> Product:
    is_batched = a.dim() > 2 and b.dim() > 2
    if b.dim() == 1:
        n, n_outputs = a.numel(), a.numel() // max(1, a.shape[-1])
    elif a.dim() == 1:
        n, n_outputs = b.numel(), b.numel() // max(1, b.shape[-2])
    else:
        n_outputs = math.prod(torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
        n_outputs *= a.shape[-2] * b.shape[-1]
        n = n_outputs * a.shape[-1]
    return Product((a, b), n, n_outputs, (0, 1), is_batched)


def _einsum(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Product]:
    if not args or not isinstance(args[0], str) or kwargs:
        return
    given = args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:]
    terms, arrow, result = args[0].replace(" ", "").partition("->")
    parts = terms.split(",")
    if len(parts) != 2 or len(given) != 2 or not all(isinstance(x, Tensor) for x in given):
        return
    if not arrow:
        result = "".join(c for c in terms if c.isalpha() and terms.count(c) == 1)
    sizes: dict[str, int] = {}
    rests: list[tuple[int, ...]] = []
    for part, x in zip(parts, given, strict=True):
        before, _dots, after = part.partition("...")
        n_before, n_after = len(before), len(after)
        shape = tuple(x.shape)
        rests.append(shape[n_before : len(shape) - n_after])
        sizes |= zip(before, shape[:n_before], strict=True)
        sizes |= zip(after, shape[len(shape) - n_after :], strict=True)
    rest = math.prod(torch.broadcast_shapes(*rests))
    n_outputs = rest * math.prod(n for c, n in sizes.items() if c in result)
    shared = any(rests) or set(parts[0]) & set(parts[1]) & set(result)
    is_batched = bool(shared) and all(x.dim() > 2 for x in given)
    n = rest * math.prod(sizes.values())
    yield Product(tuple(given), n, n_outputs, (0, 1), is_batched)


def _attention(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Product]:
    """Both products of `scaled_dot_product_attention`, with what a mask leaves out."""
    q, k, v = _given(args, kwargs, ("query", "key", "value"))
    if q is None or k is None or v is None or q.dim() < 3:
        return
    n_pairs = q.numel() // max(1, q.shape[-1]) * k.shape[-2]
    yield Product((q, k), n_pairs * q.shape[-1], n_pairs, (), is_batched=True)
    # Its other side are the softmax's fractions, which are no spikes.
    n_outputs = q.numel() // max(1, q.shape[-1]) * v.shape[-1]
    yield Product((v,), n_pairs * v.shape[-1], n_outputs, (), is_batched=True)


def _given(
    args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, ...]
) -> tuple[Tensor | None, ...]:
    values = [args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(names)]
    return tuple(x if isinstance(x, Tensor) else None for x in values)


_T = torch.Tensor
_PARSERS: dict[Any, _Parser] = {
    functional.linear: _linear,
    **dict.fromkeys(
        (
            functional.conv1d,
            functional.conv2d,
            functional.conv3d,
            functional.conv_transpose1d,
            functional.conv_transpose2d,
            functional.conv_transpose3d,
        ),
        _conv,
    ),
    **dict.fromkeys(
        (torch.matmul, torch.mm, torch.bmm, torch.mv, _T.matmul, _T.mm, _T.bmm, _T.mv,
         _T.__matmul__),
        _matmul,
    ),
    _T.__rmatmul__: _reversed,
    torch.sparse.mm: _matmul,
    **dict.fromkeys(
        (torch.addmm, torch.baddbmm, torch.sparse.addmm, _T.addmm, _T.baddbmm), _added
    ),
    torch.einsum: _einsum,
    functional.scaled_dot_product_attention: _attention,
}  # fmt: skip
# Names by which a module's code shows that it may multiply activations with each other.
NAMES = {"@", "sparse", "matmul", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention"}
