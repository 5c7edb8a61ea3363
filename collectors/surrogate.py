"""Reading σ′, the exact local derivative of a spike, from the autograd graph.

Every library makes its spikes by a Python `torch.autograd.Function` that stands at most two
elementwise operations behind the spike tensor. Applying that node to ones gives the very σ′ that
the backward pass will use; gradients with and without the probe are bit-identical (checked on nine
libraries). Wrapping the libraries' surrogate modules instead sees nothing in SpikingJelly 2.0,
which never calls them.

Nothing is found under `no_grad`, in compiled graphs, and where spikes come from a fused kernel.
"""

from typing import Any

import torch
from torch import Tensor


_PYTHON_NODE = torch.autograd.function.BackwardCFunction
# Operations that only move elements: walking through them costs no hop.
_MOVES = (
    "Stack", "Cat", "CopySlices", "Select", "Slice", "View", "Reshape", "Permute", "Transpose",
    "Unsqueeze", "Squeeze", "Unbind", "Clone", "Expand", "ToCopy",
)  # fmt: skip
# Elementwise operations by which libraries scale, sign or combine spikes. A weight operation is
# not among them: behind it stand the spikes of another layer.
_SCALINGS = ("Mul", "Sub", "Add", "Neg", "Div")
_MAX_SCALINGS = 2
_MAX_NODES = 4096


def surrogate_nodes(spikes: Tensor) -> list[Any]:
    """The surrogate's nodes behind a spike tensor, one for each call (T in a loop over time)."""
    found, seen = [], set()
    open_ends = [(spikes.grad_fn, 0)]
    while open_ends and len(seen) < _MAX_NODES:
        node, scalings = open_ends.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if _is_users_function(node):
            found.append(node)
            continue
        name = node.name()
        if not isinstance(node, _PYTHON_NODE) and not any(move in name for move in _MOVES):
            if not name.startswith(_SCALINGS) or scalings == _MAX_SCALINGS:
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


def local_derivative(node: Any) -> Tensor | None:
    """σ′ at every element of the node's output; None if the node is not elementwise.

    Shape: that of the spikes which the node made.
    """
    meta = node._input_metadata[0]
    ones = torch.ones(tuple(meta.shape), dtype=meta.dtype, device=meta.device)
    with torch.no_grad():
        gradient = node.apply(ones)
    if isinstance(gradient, tuple):
        gradient = gradient[0]
    if gradient is None or gradient.shape != ones.shape:
        return None
    return gradient


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
