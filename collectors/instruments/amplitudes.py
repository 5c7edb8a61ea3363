"""Reading the trainable amplitude and the α of a spiking layer."""

import torch
from torch import Tensor, nn

from spikewatch.metrics.amplitudes import ALPHA_CLAMP, AMPLITUDE_RANGE
from spikewatch.observing import Counters, Counts, Histogram

from ..calls import Call, Subject
from ..libraries.own_numbers import threshold_factor


_AMPLITUDES = ("amplitude", "amplitudes", "spike_amplitude", "amp", "fire_ratio")
# Quarter octaves around 1, from 2^-7 to 2^7: relative changes look alike at every size.
EDGES = tuple(2 ** (k / 4) for k in range(-28, 29))


class AmplitudeReader:
    """Reads the parameters of the layer itself when a step ends.

    Only parameters count: a library's `alpha` buffer may be a decay, and a constant amplitude of 1
    tells nothing. α is read from layers of users only, and where it is that of a threshold.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        library = subject.library
        self._names = (library.amplitude,) if library.amplitude else _AMPLITUDES
        self._of_user = library.name == "user"

    def add(self, call: Call) -> None:
        """Nothing to read before the step ends."""

    def flush(self) -> Counts | None:
        """Counters of the table `amplitudes` and the histograms of amplitude and α."""
        module = self._subject.module()
        if module is None:
            return None
        factor = threshold_factor(module) if self._of_user else None
        if factor is None and module._parameters.keys().isdisjoint(self._names):
            return None
        counters: Counters = {}
        histograms: list[Histogram] = []
        with torch.no_grad():
            if (amplitude := _parameter(module, *self._names)) is not None:
                mine = map(module._parameters.get, self._names)
                trained = any(p is not None and p.requires_grad for p in mine)
                counters |= _amplitude_counters(amplitude, trained=trained)
                histograms.append(histogram("amplitude", amplitude, EDGES))
            if factor is not None and factor.numel():
                alpha = factor.detach().double()
                counters |= alpha_counters(alpha)
                lowest, highest = ALPHA_CLAMP
                counters["n_alphas_pinned"] = ((alpha <= lowest) | (alpha >= highest)).sum()
                histograms.append(histogram("alpha", alpha, EDGES))
        return Counts({"amplitudes": counters}, histograms) if counters else None


def _amplitude_counters(amplitude: Tensor, *, trained: bool) -> Counters:
    low, high = AMPLITUDE_RANGE
    healthy = (amplitude >= low) & (amplitude <= high)  # NaN is neither
    return {
        "n_amplitudes": amplitude.numel(),
        "sum_amplitude": amplitude.sum(),
        "sum_sq_amplitude": amplitude.square().sum(),
        "amplitude_min": amplitude.min(),
        "amplitude_max": amplitude.max(),
        "n_amplitudes_out": amplitude.numel() - healthy.sum(),
        "n_trainable_amplitudes": amplitude.numel() * trained,
    }


def alpha_counters(alpha: Tensor) -> Counters:
    """Counters of α. Shape of `alpha`: any, one element a channel."""
    return {
        "n_alphas": alpha.numel(),
        "sum_alpha": alpha.sum(),
        "alpha_min": alpha.min(),
        "alpha_max": alpha.max(),
    }


def histogram(kind: str, values: Tensor, edges: tuple[float, ...]) -> Histogram:
    """Counts of `values` between fixed edges; NaN is in no bin."""
    values = values.flatten()
    bounds = torch.tensor(edges, dtype=values.dtype, device=values.device)
    values = values[~values.isnan()]
    bins = torch.bucketize(values, bounds, right=True)
    # A value on the last edge belongs to the last bin, as in NumPy.
    bins = torch.where(values == bounds[-1], len(edges) - 1, bins)
    counts = torch.bincount(bins, minlength=len(edges) + 1)
    return Histogram(kind, edges, counts[1:-1], counts[0], counts[-1])


def _parameter(module: nn.Module, *names: str) -> Tensor | None:
    for name in names:
        parameter = module._parameters.get(name)
        if parameter is not None and parameter.numel() > 0:
            return parameter.detach().double()
    return None
