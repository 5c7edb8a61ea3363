"""BrainCog 0.2: nodes that are called for each time step, or fold time into the batch.

* Recognised by `BaseNode` and `BaseMCNode` (several compartments).
* Returns the spikes alone. Called for each time step, [B, *]; with `layer_by_layer` it gets all of
  them, [T·B, *], and with `n_groups` as channels, [B, C·T, *], where T is the node's `step`.
  `OnlineLIFNode` appends a running rate along the batch's axis, which is left out.
* A sample starts where the membrane potential is a number again, or None: after `n_reset`.
* Decays by 1 − 1/τ, or by 1 − Δt/τ, or by 1 − sigmoid(w)·Δt where that is trained.
* `mem` is the potential after the reset, which sets it to a value.
* Left out: `ReLUNode` and `BiasReLUNode`, which make no spikes, and `LIAFNode`, but where it gives
  relu(u − θ), a graded spike.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..attributes import read
from ..library import Dynamics, Library, Membrane, Number, Saved, first_tensor
from .reading import learnable, plain, short_names, surrogate_name


_MODULE = "braincog.base.node.node."
_SURROGATES = "braincog.base.strategy.surrogate."
# The others save σ′, or what they return.
_SAVE_DISTANCE = {_SURROGATES + name for name in ("sigmoid", "atan", "relu_like", "backeigate")}
_BASES = {_MODULE + "BaseNode", _MODULE + "BaseMCNode"}
_REAL_VALUED = {"ReLUNode", "BiasReLUNode"}
# The others take the parameter as it is, whatever `sigmoid_thres` says.
_SIGMOID_THRESHOLD = {"IFNode", "BiasLIFNode", "PLIFNode", "BiasPLIFNode", "IzhNode", "DGLIFNode"}
_WITHOUT_TIME_STEP = {"LIAFNode", "OnlineLIFNode", "LIFNode"}
_WITH_TIME_STEP = {"NoiseLIFNode", "BiasLIFNode", "DGLIFNode"}


def _is_spiking(module: nn.Module, names: list[str]) -> bool | None:
    if not _BASES.intersection(names):
        return None
    kinds = short_names(module)
    return not (_REAL_VALUED & kinds or ("LIAFNode" in kinds and not _is_graded(module)))


def _is_graded(module: Any) -> bool:
    """Whether a LIAFNode passes on how far the potential is above the threshold, and else 0."""
    return bool(module.threshold_related) and isinstance(module.act_fun, nn.ReLU)


def _unfold(module: Any, spikes: Tensor) -> Tensor:
    view = _with_time(module, spikes)
    if "OnlineLIFNode" not in short_names(module):
        return view
    batch = int(_is_folded(module))
    return view.narrow(batch, 0, view.shape[batch] // 2)


def _with_time(module: Any, spikes: Tensor) -> Tensor:
    if read(module, "groups", 1) != 1:
        return spikes.unflatten(1, (-1, module.step)).movedim(2, 0)
    if read(module, "layer_by_layer", False):
        return spikes.unflatten(0, (module.step, -1))
    return spikes


def _axes(module: nn.Module, spikes: Tensor) -> str:  # noqa: ARG001
    return "TB*" if _is_folded(module) else "B*"


def _is_folded(module: nn.Module) -> bool:
    return bool(read(module, "layer_by_layer", False)) or read(module, "groups", 1) != 1


def _starts_sample(
    module: nn.Module,
    args: tuple[Any, ...],  # noqa: ARG001
    kwargs: Mapping[str, Any],  # noqa: ARG001
) -> bool | None:
    return read(module, "init", False) is True or not isinstance(_potential(module), Tensor)


def _potential(module: nn.Module) -> Any:
    compartments = read(module, "mems")
    return compartments.get("soma") if compartments else read(module, "mem")


def _dynamics(module: nn.Module) -> Dynamics:
    kinds, threshold = short_names(module), plain(read(module, "threshold"))
    if read(module, "sigmoid_thres", False) and kinds & _SIGMOID_THRESHOLD:
        threshold = threshold.sigmoid()
    return Dynamics(
        threshold=threshold,
        decay=_decay(module, kinds),
        reset="zero",
        surrogate=surrogate_name(read(module, "act_fun")),
        learnable=learnable(module),
    )


def _decay(module: Any, kinds: frozenset[str]) -> Number | None:
    if kinds & {"PLIFNode", "BiasPLIFNode"}:
        return 1 - plain(module.w).sigmoid() * module.dt
    if "LIFSTDPNode" in kinds:
        return plain(module.tau)
    if "BackEINode" in kinds:
        return module.decay
    tau = plain(read(module, "tau"))
    if tau is None:
        return None
    if kinds & _WITH_TIME_STEP:
        return 1 - module.dt / tau
    return 1 - 1 / tau if kinds & (_WITHOUT_TIME_STEP | {"ThreeCompNode"}) else None


def _membrane(module: nn.Module, output: Any) -> Membrane | None:
    spikes, mem = first_tensor(output), _potential(module)
    if spikes is None or not isinstance(mem, Tensor):
        return None
    shape = _unfold(module, spikes).shape[_is_folded(module) :]
    return Membrane(mem.detach(), pre_reset=False) if mem.shape == shape else None


def _saved(function: str) -> Saved:
    return "u-theta" if function in _SAVE_DISTANCE else "other"


LIBRARY = Library(
    "braincog",
    is_graded=lambda module: "LIAFNode" in short_names(module),
    is_spiking=_is_spiking,
    axes=_axes,
    unfold=_unfold,
    starts_sample=_starts_sample,
    dynamics=_dynamics,
    membrane=_membrane,
    saved=_saved,
)
