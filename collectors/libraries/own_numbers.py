"""Numbers of a neuron that a user writes, read by the names that such code gives its attributes.

Only attributes, buffers and parameters are read, never properties: those may compute or raise. A τ
tells of no decay: some use 1 − 1/τ, others exp(−1/τ). A threshold and a decay that a module does
not hold are globals which its code names (`constants.py`).
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from spikewatch.layers import own_type
from spikewatch.metrics.amplitudes import ALPHA_CLAMP

from ..constants import Constants, constants_of_class
from ..library import Dynamics, Number, Reset
from .reading import learnable, plain, surrogate_name
from .squashes import may_be_squashed


THRESHOLDS = (
    "threshold", "v_threshold", "spike_threshold", "thresh", "_threshold", "v_th", "V_th", "vth",
    "Vth", "vthr", "thre", "thr",
)  # fmt: skip
_DECAYS = ("decay", "mem_decay", "v_decay")
_SURROGATES = (
    "surrogate",
    "surrogate_function",
    "spike_grad",
    "surrogate_fn",
    "act_fun",
    "spike_fn",
)
_RESETS = ("reset_mechanism", "reset_mode", "reset")
_RESET_WORDS: dict[str, Reset] = {
    "subtract": "subtract", "soft": "subtract", "zero": "zero", "hard": "zero", "none": "none",
}  # fmt: skip
_WEIGHTS = ("weight", "bias")
_FACTOR, _SCALES = "alpha", ("running_scale", "running_mean_abs", "running_abs_mean")
_SQUASHED = (
    "its threshold is what a function makes of its parameter {name!r}, as far as its code tells: "
    "it is not known, and no potential is measured in thresholds. To have both, keep what the "
    "function makes, detached, in an attribute `threshold`"
)


def held_by(module: nn.Module, names: tuple[str, ...]) -> Iterator[Any]:
    """What the module itself holds under these names, in their order."""
    yield from (value for _, value in _named(module, names))


def _named(module: nn.Module, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    places = (vars(module), module._parameters, module._buffers)
    yield from ((name, place[name]) for name in names for place in places if name in place)


def dynamics_with(constants: Constants, module: nn.Module) -> Dynamics:
    """Parameters of a neuron; what its module does not hold is as its code names it."""
    words = [w for w in held_by(module, _RESETS) if isinstance(w, str)]
    name, threshold = _threshold(module)
    decay, unknown = _decay(module), ""
    if isinstance(threshold, nn.Parameter) and may_be_squashed(own_type(module), name):
        threshold, constants, unknown = None, constants._replace(threshold=None), name
    return Dynamics(
        threshold=constants.threshold if threshold is None else plain(threshold),
        decay=constants.decay if decay is None else decay,
        decay_guessed=True,
        reset=_RESET_WORDS.get(words[0]) if words else None,
        surrogate=next((surrogate_name(s) for s in _surrogates(module)), ""),
        learnable=_learnable(module),
        unknown=_SQUASHED.format(name=unknown) if unknown else "",
    )


def dynamics(module: nn.Module) -> Dynamics:
    """Parameters of a neuron, as its module and the code of its class tell them."""
    return dynamics_with(constants_of_class(own_type(module)), module)


def _learnable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Those of the neurons: a number, or one a channel or neuron, and no matrix of weights."""
    held = learnable(module, besides=_WEIGHTS)
    return {name: p for name, p in held.items() if sum(n > 1 for n in p.shape) <= 1}


def _threshold(module: nn.Module) -> tuple[str, Number | None]:
    """The threshold that a module holds, under which name."""
    for name, value in _named(module, THRESHOLDS):
        if _is_number(value):
            return name, value
    factor, scale = threshold_factor(module), _running_scale(module)
    if factor is None or scale is None:
        return "", None
    return "", factor.detach().clamp(*ALPHA_CLAMP) * scale.detach()


def threshold_factor(module: nn.Module) -> nn.Parameter | None:
    """The α of a threshold that follows its input: α times a running mean of |x|.

    Without such a mean beside it, an α is anything: a gate, a decay, the width of a surrogate.
    """
    return None if _running_scale(module) is None else module._parameters.get(_FACTOR)


def _running_scale(module: nn.Module) -> Tensor | None:
    scale = next(held_by(module, _SCALES), None)
    return scale if isinstance(scale, Tensor) else None


def _surrogates(module: nn.Module) -> Iterator[Any]:
    yield from (s for s in held_by(module, _SURROGATES) if s is not None)
    yield from (module._modules[n] for n in _SURROGATES if module._modules.get(n) is not None)


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor | int | float) and not isinstance(value, bool)


def _decay(module: nn.Module) -> Number | None:
    # A number beyond [0, 1] is no decay: it is a time constant in steps; or β, which names the
    # sharpness of a surrogate as well. What is a tensor is looked at once it is on the host.
    names = _DECAYS if _is_of_adaptation(module) else (*_DECAYS, "beta")
    for name, value in _named(module, names):
        if isinstance(value, nn.Parameter) and may_be_squashed(own_type(module), name):
            return None  # it is what a function makes of it that acts
        if _is_number(value) and (isinstance(value, Tensor) or 0 <= value <= 1):
            return plain(value)
    return None


def _is_of_adaptation(module: nn.Module) -> bool:
    """Whether β may be that of an adaptation, since a learnable α beside it is the membrane's."""
    return module._parameters.get(_FACTOR) is not None and threshold_factor(module) is None
