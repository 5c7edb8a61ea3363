"""Reading σ′, the exact local derivative of a spike, from the autograd graph.

Every library makes its spikes by a Python `torch.autograd.Function` that stands at most two
elementwise operations behind the spike tensor. Its backward, given ones and a copy of its context,
gives the very σ′ that the backward pass will use; gradients with and without the probe are bit-
identical (checked on nine libraries). Where its code has effects it is not called. Wrapping the
libraries' surrogate modules instead sees nothing in SpikingJelly 2.0, which never calls them.

Nothing is found under `no_grad`, in compiled graphs, and where spikes come from a fused kernel.
"""

import dis
import inspect
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import Tensor


_PYTHON_NODE = torch.autograd.function.BackwardCFunction
# Operations that only move elements: walking through them costs no hop.
MOVES = (
    "Stack", "Cat", "CopySlices", "Select", "Slice", "View", "Reshape", "Permute", "Transpose",
    "Unsqueeze", "Squeeze", "Unbind", "Clone", "Expand", "ToCopy", "IndexCopy", "IndexPut",
)  # fmt: skip
# Elementwise operations by which libraries scale, sign or combine spikes. A weight operation is
# not among them: behind it stand the spikes of another layer.
SCALINGS = ("Mul", "Sub", "Add", "Neg", "Div")
MAX_SCALINGS = 2
# A negative σ′ is told from this part of the largest |σ′|, and from this size.
_WRONG_SIGN, _SMALL = 0.25, 0.05
MAX_NODES = 4096
_TORCH = str(Path(torch.__file__).parent)
_DRAWING = {
    "random", "rand", "randn", "randint", "rand_like", "randn_like", "bernoulli", "bernoulli_",
    "multinomial", "normal_", "uniform_", "Generator", "generator", "default_rng",
}  # fmt: skip


def surrogate_nodes(spikes: Tensor) -> list[Any]:
    """The surrogate's nodes behind a spike tensor, one for each call (T in a loop over time)."""
    found, seen = [], set()
    open_ends = [(spikes.grad_fn, 0)]
    while open_ends and len(seen) < MAX_NODES:
        node, scalings = open_ends.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if _is_users_function(node):
            found.append(node)
            continue
        name = node.name()
        if not isinstance(node, _PYTHON_NODE) and not any(move in name for move in MOVES):
            if not name.startswith(SCALINGS) or scalings == MAX_SCALINGS:
                continue
            scalings += 1
        # Reversed, so that a stack of T time steps comes out in the order of time.
        open_ends += [(parent, scalings) for parent, _ in reversed(node.next_functions)]
    return found


def _is_users_function(node: Any) -> bool:
    # torch's own Python Functions (checkpoint, compiled graphs, DDP's sink, backward hooks) are
    # walked through and never applied: applying a checkpoint would run its block again.
    forward = getattr(node, "_forward_cls", None) if isinstance(node, _PYTHON_NODE) else None
    return forward is not None and not forward.__module__.startswith("torch.")


def output_shape(node: Any) -> tuple[int, ...]:
    """Shape of what the node's forward returned."""
    return tuple(node._input_metadata[0].shape)


def local_derivative(node: Any, rows: slice | None = None) -> Tensor | None:
    """σ′ at every element of the node's output; None if the node is not elementwise.

    Args:
        node: A surrogate's node.
        rows: Only these indices of the output's first dimension; for nodes of which
            `can_be_read_in_part` is true.

    Returns:
        A tensor of the shape of the spikes which the node made.
    """
    meta = node._input_metadata[0]
    shape = tuple(meta.shape)
    saved = node.saved_tensors
    if rows is not None:
        saved = tuple(_rows_of(t, rows, shape) for t in saved)
        shape = (len(range(shape[0])[rows]), *shape[1:])
    ones = torch.ones(shape, dtype=meta.dtype, device=meta.device)
    gradients = (ones, *_zeros_of_other_outputs(node))
    with torch.no_grad():
        gradient = _backward(_Context(node, saved), *gradients)
    if isinstance(gradient, tuple):
        gradient = gradient[0]
    if gradient is None or gradient.shape != ones.shape:
        return None
    return gradient


def _zeros_of_other_outputs(node: Any) -> list[Tensor]:
    """Gradients of what a Function returns beside its spikes, such as a threshold."""
    return [torch.zeros(m.shape, dtype=m.dtype, device=m.device) for m in node._input_metadata[1:]]


def derivative_at(
    node: Any, points: Callable[[torch.dtype, torch.device], Tensor]
) -> Tensor | None:
    """σ′ at points of one's own, in place of the potentials that the node saved.

    Args:
        node: A surrogate's node.
        points: Gives a vector of points in this dtype on this device.

    Returns:
        σ′ at the points; None where it cannot be told which of the saved tensors is the potential,
        or the node is not elementwise.
    """
    shape = output_shape(node)
    whole = [i for i, t in enumerate(node.saved_tensors) if _is_potential(t, shape)]
    if len(whole) != 1 or not shape:
        return None
    like = node.saved_tensors[whole[0]]
    at = points(like.dtype, like.device).reshape(-1, *(1 for _ in shape[1:]))
    saved = tuple(at if i == whole[0] else t for i, t in enumerate(node.saved_tensors))
    with torch.no_grad():
        context = _Context(node, saved)
        gradient = _backward(context, torch.ones_like(at), *_zeros_of_other_outputs(node))
    if isinstance(gradient, tuple):
        gradient = gradient[0]
    if not isinstance(gradient, Tensor) or gradient.dim() != len(shape):
        return None
    # A threshold for each channel makes a row of each point: the first channel's.
    slope = gradient.flatten(1)[:, 0] if len(shape) > 1 else gradient
    return slope if slope.numel() == at.numel() else None


def _is_potential(saved: Any, shape: tuple[int, ...]) -> bool:
    return isinstance(saved, Tensor) and saved.is_floating_point() and tuple(saved.shape) == shape


class _Context:
    """The context that a Function's backward is given: a copy, with other tensors saved, maybe.

    A backward may work in place on what it saved, set attributes of its context, or delete them.
    The user's own backward pass is still to come, and must find what it left.
    """

    def __init__(self, node: Any, saved: tuple[Any, ...]) -> None:
        self._node = node
        self.saved_tensors = tuple(map(_copy, saved))

    def __getattr__(self, name: str) -> Any:
        copy = _copy(getattr(self._node, name))
        setattr(self, name, copy)
        return copy

    def __delattr__(self, name: str) -> None:
        vars(self).pop(name, None)


def _copy(thing: Any) -> Any:
    return thing.clone() if isinstance(thing, Tensor) else thing


def _backward(context: _Context, *gradients: Tensor) -> Any:
    """What a Function's backward makes of gradients, in whichever way it is defined."""
    cls = context._forward_cls
    has_vjp = cls.vjp is not torch.autograd.Function.vjp
    return (cls.vjp if has_vjp else cls.backward)(context, *gradients)


def _rows_of(saved: Any, rows: slice, shape: tuple[int, ...]) -> Any:
    whole = isinstance(saved, Tensor) and tuple(saved.shape) == shape
    return saved[rows] if whole else saved


def turns_negative(slope: Tensor) -> Tensor:
    """Whether σ′ has the wrong sign somewhere: 0-d, of its dtype, 1 or 0.

    The lobes of a surrogate that is meant to have them (multi-Gaussian, Yin et al. 2021) reach 5 %
    of its peak. A sign that is wrong on one side is as large as what is right on the other.
    """
    low, high = torch.aminmax(slope)
    return (low < -torch.clamp(_WRONG_SIGN * torch.maximum(high, -low), min=_SMALL)).to(slope.dtype)


def can_be_read_in_part(node: Any) -> bool:
    """Whether some rows of the saved tensors give these rows of σ′: tried on the first row."""
    try:
        whole, part = local_derivative(node), local_derivative(node, slice(0, 1))
    except Exception:  # noqa: BLE001 - a backward that needs more than the rows of its tensors
        return False
    if whole is None or part is None:
        return False
    return bool(torch.allclose(whole[:1], part, rtol=1e-5, atol=1e-8, equal_nan=True))


@lru_cache(maxsize=512)
def has_effects(function: Any) -> bool:
    """Whether the code of a Function's backward changes what is not its own, or may draw.

    One more call would then change the training: a width that is annealed there, a count of calls,
    a generator that is not torch's.
    """
    for name in ("backward", "vjp"):
        code = getattr(inspect.unwrap(getattr(function, name)), "__code__", None)
        if not isinstance(code, CodeType) or code.co_filename.startswith(_TORCH):
            continue
        if _DRAWING.intersection(code.co_names) or any(_writes(code)):
            return True
    return False


def _writes(code: CodeType) -> Iterator[bool]:
    """Whether instructions write to globals, or to attributes of other things than the context."""
    context, before = code.co_varnames[:1], None
    for instruction in dis.get_instructions(code):
        if instruction.opname == "STORE_GLOBAL":
            yield True
        elif instruction.opname == "STORE_ATTR":
            yield before is None or (before.opname, before.argval) != ("LOAD_FAST", *context)
        before = instruction


def draws_random_numbers(node: Any) -> bool:
    """Whether the surrogate's backward draws random numbers, as stochastic estimators do.

    Tried once; the generators are left as they were found.
    """
    device = node._input_metadata[0].device
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    local_derivative(node)
    drawn = not torch.equal(torch.get_rng_state(), states[0])
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        drawn |= not torch.equal(torch.cuda.get_rng_state(device), states[1])
        torch.cuda.set_rng_state(states[1], device)
    return drawn
