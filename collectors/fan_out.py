"""How many outputs of a weight layer an input element reaches.

Asked of the layer itself: with all weights 1, the derivative of the sum of its outputs by an input
is the number of outputs that this input reaches. So stride, padding of any mode, dilation, groups
and transposition are right because torch is.
"""

import math
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


# Of each axis its size, and whether a convolution takes each of its places alone.
Axes = Sequence[tuple[int, bool]]


@dataclass(frozen=True)
class FanOut:
    """Outputs that an input element reaches.

    Attributes:
        each: Of each place, float64 [*space] on the input's device; the same for every channel.
            None where it is `mean` everywhere.
        mean: Mean over the places.
    """

    each: Tensor | None
    mean: float


_known: "weakref.WeakKeyDictionary[nn.Module, dict[tuple[int, ...], FanOut]]" = (
    weakref.WeakKeyDictionary()
)
_MOST_SHAPES = 8
_CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}


def fan_out(module: nn.Module, x: Tensor, n_outputs: int = 0) -> FanOut | None:
    """Fan-out of a Linear or Conv layer for inputs of this shape.

    Args:
        module: The layer.
        x: Its input; only shape and device matter. Shape: [..., features], or [..., C, *space]; of
            a kernel of one place in all [B, C, *], which a class of its own may bring to rank; of
            a Linear class [B, *, features, *], in whose code the features are not the last axis.
        n_outputs: Elements of its output, which tell whether such a class uses each input once.

    Returns:
        None where the input has another shape: a class of its own that reshapes it.
    """
    if isinstance(module, nn.Linear):
        fits = x.shape[-1] == module.in_features or (
            module.in_features in x.shape[1:]
            and n_outputs * module.in_features == x.numel() * module.out_features
        )
        return FanOut(None, float(module.out_features)) if fits else None
    n_axes = len(_kernel(module))
    if x.dim() <= n_axes:
        return _reach_of_places(module, x)
    if x.shape[-n_axes - 1] != module.in_channels:
        return None
    space = tuple(x.shape[-n_axes:])
    known = _known.setdefault(module, {})
    if space not in known:
        if len(known) == _MOST_SHAPES:
            known.clear()
        shape = tuple(x.shape[-n_axes - 1 :])
        known[space] = reach_of(_convolution(module), _shape(module), shape, x.device)
    return known[space]


def inputs_of_one(module: nn.Module, x: Tensor) -> int:
    """Elements of one input of a Linear or Conv layer: of one sample, at one time step."""
    if isinstance(module, nn.Linear):
        return module.in_features
    return math.prod(x.shape[-len(_kernel(module)) - 1 :])


def axes_of(x: Tensor, kernel: Sequence[int]) -> Axes:
    """The axes that a convolution slides over, and which of them may as well be time.

    Args:
        x: Its input. Shape: [..., C, *space].
        kernel: Its size along each axis.
    """
    sizes = x.shape[x.dim() - len(kernel) :]
    return [(n, k == 1) for n, k in zip(sizes, kernel, strict=True)]


def axes_within(module: nn.Module, x: Tensor) -> Axes:
    """Axes within one input of a Linear or Conv layer (`inputs_of_one`) that may be time."""
    if isinstance(module, nn.Linear) or x.dim() <= len(_kernel(module)):
        return ()
    return axes_of(x, _kernel(module))


def reach_of(
    convolve: Callable[[Tensor, Tensor], Tensor],
    weight_shape: tuple[int, ...],
    shape: tuple[int, ...],
    device: torch.device,
) -> FanOut:
    """Fan-out of a convolution.

    Args:
        convolve: Makes the output of input and weight, both float64 on the CPU.
        weight_shape: Shape of the weight.
        shape: Shape of one sample: (C, *space).
        device: Where the result is kept.
    """

    def derive() -> Tensor:
        # On the CPU: once a shape, and a device's autotuning is none of our business.
        weight = torch.ones(weight_shape, dtype=torch.float64)
        x = torch.zeros((1, *shape), dtype=torch.float64, requires_grad=True)
        (reach,) = torch.autograd.grad(convolve(x, weight).sum(), x)
        return reach[0, 0].clone()

    # In a thread of its own, which has none of the modes that the user's may be in: a checkpoint
    # would take what this saves for its own, and then miss it when it runs again.
    with ThreadPoolExecutor(1) as thread:
        each = thread.submit(derive).result()
    return FanOut(each.to(device), float(each.mean()))


def _kernel(module: Any) -> tuple[int, ...]:
    return tuple(module.kernel_size)


def _shape(module: Any) -> tuple[int, ...]:
    return tuple(module.weight.shape)


def _reach_of_places(module: Any, x: Tensor) -> FanOut | None:
    """Where each place is multiplied by itself, as slayer's Dense does with [B, C, T]."""
    alone = {*module.kernel_size, *module.stride} == {1} and not any(module.padding)
    if alone and x.dim() > 1 and x.shape[1] == module.in_channels:
        return FanOut(None, module.out_channels / module.groups)
    return None


def _convolution(module: Any) -> Callable[[Tensor, Tensor], Tensor]:
    if not module.transposed:
        # Torch's own: what a user's class does besides (noise, statistics) is not to be done again.
        plain = _CONVOLUTIONS[len(_kernel(module))]
        return lambda x, weight: plain._conv_forward(module, x, weight, None)
    convolve = _TRANSPOSED[len(_kernel(module))]
    return lambda x, weight: convolve(
        x, weight, None, module.stride, module.padding, module.output_padding,
        module.groups, module.dilation,
    )  # fmt: skip
