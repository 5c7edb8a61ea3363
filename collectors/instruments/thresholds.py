"""Threshold and unit of z for each element that is read of a tensor of potentials.

What a neuron has one number of, or a channel, may be held in one row, [C], whatever the potential's
shape is: `theta.view(1, -1, 1, 1)`. Where such a row goes, the code of a user says, and not the
tensor. PyTorch's own rule, by which it would lie along the last axis, is right for libraries.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..arrays import Array, on_host, sample, where
from ..calls import Call, Subject
from ..library import Dynamics


_UNCLEAR = (
    "to which neurons its {size} thresholds belong is not clear, of neurons of shape {shape}: no "
    "potential is measured in thresholds. Hold them in a shape that says so, such as [C, 1, 1]"
)


class Scale:
    """Threshold and unit of z, for every `stride`-th element of a tensor.

    Attributes:
        theta: The threshold, a number or one for each element that is read.
        unit: The distance that z is measured in: from the reset potential to the threshold, where
            there is one.
    """

    def __init__(self, theta: Array, reset_to: Array | None) -> None:
        self.theta = theta
        self.unit = abs(theta)
        if reset_to is not None:
            span = theta - reset_to
            if not isinstance(span, float):
                self.unit = where(span > 0, span, self.unit)
            elif span > 0:
                self.unit = span


def scale_of(
    dynamics: Dynamics, like: Tensor, stride: int, *, call: Call, subject: Subject
) -> Scale | None:
    """The scale of potentials; None, and the user is told, where it is not clear whose are whose.

    Args:
        dynamics: Of the neurons, with a threshold.
        like: The potentials; of the shape of the call's values, or of one time step of them.
        stride: Which elements are read: every `stride`-th.
        call: In which they were.
        subject: The layer.
    """
    laid = []
    for value in (dynamics.threshold, dynamics.reset_to):
        if isinstance(value, Tensor) and value.numel() > 1:
            whole = _laid_over(value.detach(), like, call, subject)
            if whole is None:
                shape = tuple(call.neuron_shape)
                subject.tell(_UNCLEAR.format(size=value.numel(), shape=shape))
                return None
            laid.append(sample(whole.to(like), stride))
        else:
            laid.append(None if value is None else _number(value, like))
    return Scale(*laid)


def _number(value: Tensor | float, like: Tensor) -> Array:
    """One number for all elements. Nothing is copied to the device."""
    if isinstance(value, Tensor):
        value = value.detach().reshape(()).to(like)
        return value.item() if on_host(value) else value
    rounded = torch.full((), value, dtype=like.dtype, device=like.device)
    return rounded.item() if on_host(rounded) else rounded


def _laid_over(value: Tensor, like: Tensor, call: Call, subject: Subject) -> Tensor | None:
    """Numbers of the neurons, of the shape of their potentials."""
    row = value.shape[-1] == value.numel() and value.dim() < like.dim()
    if row and subject.library.name == "user":
        axis = _axis_of(value.numel(), like.shape, call, subject)
        if axis is None:
            return None
        value = value.reshape(-1, *(1 for _ in like.shape[axis + 1 :]))
    try:
        return value.broadcast_to(like.shape)
    except RuntimeError:
        return None


def _axis_of(n: int, shape: Sequence[int], call: Call, subject: Subject) -> int | None:
    """Along which axis of potentials a row of n numbers lies.

    Along that of channels, if it is that long; else along the only one that is.
    """
    axes = _axes_of_neurons(shape, call)
    fits = [axis for axis in axes if shape[axis] == n]
    channels = subject.channel_axis([shape[axis] for axis in axes])
    if channels is not None and axes[channels] in fits:
        return axes[channels]
    return fits[0] if len(fits) == 1 else None


def _axes_of_neurons(shape: Sequence[int], call: Call) -> list[int]:
    """The neurons' own axes of potentials: of all time steps, of one, or with the two folded."""
    whole = tuple(call.values.shape)
    step = call.axes.one_step(whole)
    if tuple(shape) == whole:
        others = call.axes.dims
    elif step is not None and tuple(shape) == step.shape:
        others = step.dims
    else:
        others = tuple(range(len(shape) - len(call.neuron_shape)))
    return [axis for axis in range(len(shape)) if axis not in others]
