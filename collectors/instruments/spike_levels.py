"""Whether a neuron makes spikes of several sizes: integers up to a few, or a few parts of θ.

As those of multi-level neurons (LM-HT, Hao et al. 2024), of integer training (I-LIF, Luo et al.
2024) and of quantized activations (QCFS, Bu et al. 2022). An amplitude that is one of a layer or of
each channel is the same in all spikes of a neuron, however large.
"""

from typing import Any

import torch
from torch import Tensor

from ..arrays import on_host
from ..calls import Call
from ..sums import in_full_precision


_ROUNDING = 0.01  # relative; levels are farther apart
_MOST_LOOKED_AT = 1 << 16  # spikes, of some neurons


class SpikeLevels:
    """Remembers whether two spikes of a neuron, in different samples, had different sizes.

    Attributes:
        seen: 1 where they had, 0-d on its device; a bool on the host; None without a look.
    """

    def __init__(self) -> None:
        self.seen: Any = None

    def look(self, call: Call) -> None:
        """Look at one time step of a call: an amplitude may be that of a time step."""
        if self.seen is True:
            return
        values, dims, time = call.values, call.axes.dims, call.axes.time
        if time is not None and (step := call.axes.one_step(values.shape)) is not None:
            values, dims = values.select(time, values.shape[time] // 2), step.dims
        if not dims or values.numel() == 0:
            return
        found = _differ(in_full_precision(_of_some(values, dims)))
        if on_host(found):
            self.seen = bool(found)
        else:
            self.seen = found if self.seen is None else self.seen.to(found.device) | found


def _of_some(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The observations of some neurons, [n_obs, n_neurons]."""
    values = values.movedim(dims, tuple(range(len(dims)))).flatten(0, len(dims) - 1)
    values = values.reshape(len(values), -1)
    n_looked_at = max(1, _MOST_LOOKED_AT // len(values))
    return values[:, :: -(-values.shape[1] // n_looked_at)]


def _differ(spikes: Tensor) -> Tensor:
    """Whether a neuron has positive spikes of different sizes among its observations; 0-d."""
    most = spikes.amax(0)
    least = torch.where(spikes > 0, spikes, torch.inf).amin(0)
    return (most.isfinite() & (most > (1 + _ROUNDING) * least)).any()
