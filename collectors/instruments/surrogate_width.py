"""The effective width of a surrogate: its full width at half maximum (FWHM), tracked over time.

The surrogate's own backward is asked for σ′ at a few thousand points instead of the potentials that
it saved. So it is right for every library, and for a steepness that is learned or annealed, without
knowing what its parameters are called: α, k, slope, width, temperature.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from spikewatch.observing import Counts, OnHost

from ..arrays import on_host
from ..calls import Call, Subject
from ..hooks import keeps_elsewhere, saved_tensors_are_hooked
from ..surrogate import derivative_at, draws_random_numbers, has_effects
from .scaled_distance import unit_of


# Points on one side of the threshold: fine ones near it, for a width of 0.001 as for one of 50, and
# half a hundredth apart up to 4, where a saved potential still has its threshold in it. There, fine
# ones are added on both sides of the highest.
_FINE = (1e-4, 1e2, 400)
_EVEN = (0.005, 800)
_NEAR = 0.1
_NAME = "fwhm"


class SurrogateWidth:
    """Reads the width once in each step that has the dear readings."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._slope: Tensor | None = None
        self._may: bool | None = None

    def add(self, call: Call) -> None:
        """Read σ′ of one surrogate at the points."""
        if not (call.probed and call.nodes) or self._slope is not None or self._may is False:
            return
        if saved_tensors_are_hooked() or keeps_elsewhere(call.nodes[0]):
            return
        node = call.nodes[0]
        if self._may is None:
            self._may = not (has_effects(node._forward_cls) or draws_random_numbers(node))
        if self._may:
            self._slope = self._read(node, call)
            self._may = self._slope is not None

    def _read(self, node: Any, call: Call) -> Tensor | None:
        try:
            slope = derivative_at(node, _points)
            if slope is None:
                return None
            peak = _peak(slope)
            near = derivative_at(
                node, lambda dtype, device: _near(peak.to(dtype), _offsets(dtype, device))
            )
            if near is None:
                return None
            last = [peak.to(slope.dtype), self._unit(node, slope, call)]
            return torch.cat([slope, near, *last])
        except Exception:  # noqa: BLE001 - a backward that needs more than what it saved
            return None

    def _unit(self, node: Any, slope: Tensor, call: Call) -> Tensor:
        """The potential's units in one unit of what the surrogate is given; shape (1,)."""
        saved = next(iter(node.saved_tensors), None)
        if not isinstance(saved, Tensor) or call.module is None:
            return slope.new_ones(1)
        theta = self._subject.library.dynamics(call.module).threshold
        if isinstance(theta, Tensor) and theta.numel() == 1 and on_host(theta):
            theta = float(theta.detach())
        unit = unit_of(node, saved, theta, stride=max(1, saved.numel()))
        if isinstance(unit, Tensor | np.ndarray):
            return torch.as_tensor(unit).to(slope).reshape(1)
        return slope.new_full((1,), 1.0 if unit is None else unit)

    def flush(self) -> Counts | None:
        """The counter `fwhm` of the table `dynamics`."""
        slope, self._slope = self._slope, None
        if slope is None:
            return None
        return Counts({"dynamics": {(_NAME,): OnHost(slope.double(), _fold)}})


def _fine() -> list[float]:
    low, high, n = _FINE
    return [low * (high / low) ** (i / (n - 1)) for i in range(n)]


def _grid() -> list[float]:
    step, n_even = _EVEN
    side = sorted({*_fine(), *(step * i for i in range(1, n_even + 1))})
    return [-x for x in reversed(side)] + [0.0] + side


def _grid_near() -> list[float]:
    return [sign * x for sign in (-1, 1) for x in _fine() if x < _NEAR]


@cache
def _grids_of() -> tuple[np.ndarray, np.ndarray]:
    return np.array(_grid()), np.array(_grid_near())


@cache
def _points(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(_grid(), dtype=dtype, device=device)


@cache
def _offsets(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(_grid_near(), dtype=dtype, device=device)


def _peak(slope: Tensor) -> Tensor:
    """The size of the point at which σ′ is highest, without waiting for the device. Shape: (1,)."""
    finite = slope.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return _points(slope.dtype, slope.device).abs().index_select(0, finite.argmax().reshape(1))


def _near(peak: Any, offsets: Any) -> Any:
    """Points near a peak, and their negatives: ternary spikes have a peak on either side."""
    near = peak + offsets
    return torch.cat([near, -near]) if isinstance(near, Tensor) else np.concatenate([near, -near])


def _fold(numbers: list[float]) -> Mapping[str, float | None]:
    grid, offsets = _grids_of()
    *slope, peak, unit = numbers
    at = np.concatenate([grid, _near(peak, offsets)])
    order = at.argsort(kind="stable")
    width = full_width(at[order], np.array(slope)[order])
    return {_NAME: None if width is None else width * unit}


def full_width(at: ArrayLike, slope: ArrayLike) -> float | None:
    """Full width at half maximum of a peak, with straight lines between the points.

    Of a surrogate with two peaks, as those of ternary spikes have, it is the width of one: twice
    its outer half.

    Args:
        at: Increasing points, symmetric about 0; shape (2k + 1,).
        slope: σ′ at them.

    Returns:
        None where σ′ has no peak, or does not fall to its half on both sides.
    """
    at, slope = np.asarray(at, dtype=float), np.asarray(slope, dtype=float)
    # Far out some formulas overflow, ∞/∞.
    middle = len(at) // 2
    finite = np.isfinite(slope)
    bad = np.flatnonzero(~(finite[middle:] & finite[middle::-1]))
    reach = (int(bad[0]) if len(bad) else middle + 1) - 1
    if reach < 0:
        return None
    inside = slice(middle - reach, middle + reach + 1)
    at, slope = at[inside], slope[inside]
    top = float(slope.max())
    if top <= 0:
        return None
    is_top = slope >= top * (1 - 1e-6)
    right = int(np.flatnonzero(is_top)[-1])
    two_peaks = slope[reach] < top * (1 - 1e-3) and right != reach
    two_peaks &= slope[len(at) - 1 - right] >= top * (1 - 1e-3)
    outer = _falls_to(top / 2, at[right:], slope[right:])
    if two_peaks and outer is not None:
        left = int(np.flatnonzero(~is_top[:right])[-1]) + 1  # not `right` of one with a flat top
        return 2 * (outer - float(at[left] + at[right]) / 2)
    inner = _falls_to(top / 2, at[right::-1], slope[right::-1])
    return None if outer is None or inner is None else outer - inner


def _falls_to(height: float, at: np.ndarray, slope: np.ndarray) -> float | None:
    """Where σ′, which begins above `height`, first falls below it."""
    below = np.flatnonzero(slope < height)
    if not len(below):
        return None
    i = int(below[0])
    (x, after), (y, following) = at[i - 1 : i + 1].tolist(), slope[i - 1 : i + 1].tolist()
    return x + (after - x) * (y - height) / (y - following)
