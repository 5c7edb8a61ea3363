"""Norse 1.1: cells, and the modules that loop over time.

* Recognised by the bases in `norse.torch.module.snn`, or as one of the two cells without a base,
  where the parameters `p` (or a part of them, in refractory neurons) have a threshold: leaky
  integrators (`LI`, `LICell`, `LIBoxCell`) share the bases and have none.
* Returns `(spikes, state)`. A cell is called for each time step, [B, *]; `SNN` and `SNNRecurrent`
  get the sequence, [T, B, *].
* A sample starts where a cell is called without a state, or with a fresh one.
* Decays by 1 − Δt/τ (Norse integrates by Euler's method); neurons with an exponential term, and
  those without a leak, have no single factor.
* The state holds the potential after the reset; that of an adaptive neuron (LSNN) its threshold b
  as well, of which `v_th` is the value at rest. Parameters are rarely trainable; those that are
  stand in `p`, not in the module.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..attributes import has, read
from ..library import (
    Dynamics,
    Library,
    Membrane,
    Number,
    Start,
    States,
    first_tensor,
    qualified_names,
    saved_in,
)
from .reading import argument, is_fresh, plain, with_numbers


_MODULE = "norse.torch.module.snn."
_CELLS = {_MODULE + name for name in ("SNNCell", "SNNRecurrentCell")} | {
    "norse.torch.module.coba_lif.CobaLIFCell",
    "norse.torch.module.lif_correlation.LIFCorrelation",
}
_THRESHOLDS = ("v_th", "v_thresh")
_LSNN = "norse.torch.module.lsnn."
_ADAPTIVE = {_LSNN + name for name in ("LSNNCell", "LSNNRecurrentCell", "LSNN", "LSNNRecurrent")}
_SEQUENCES = {_MODULE + name for name in ("SNN", "SNNRecurrent")}


def _is_spiking(module: nn.Module, names: list[str]) -> bool | None:
    if not (_CELLS | _SEQUENCES).intersection(names):
        return None
    return _parameters(module) is not None


def _parameters(module: nn.Module) -> Any:
    """Those of `p` that have the threshold; None if there is none."""
    p = read(module, "p")
    return next((q for name in _THRESHOLDS if (q := _with(name, p)) is not None), None)


def _with(field: str, values: Any) -> Any:
    """The named tuple that has the field: itself, or the first within it; None if there is none."""
    if has(values, field):
        return values
    parts = values if isinstance(values, tuple) else ()
    return next((part for part in parts if has(part, field)), None)


def _axes(module: nn.Module, spikes: Tensor) -> str:  # noqa: ARG001
    return "TB*" if _SEQUENCES.intersection(qualified_names(type(module))) else "B*"


def _starts_sample(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Start:
    state = argument(module, args, kwargs, "state")
    if state is None:
        return True
    held = _with("v", state)
    drive = argument(module, args, kwargs, "input_tensor")
    return is_fresh(held.v, drive=drive) if held is not None else False


def _states_before(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Any]:
    return _potential(argument(module, args, kwargs, "state"))


def _states_after(module: nn.Module, output: Any) -> list[Any]:  # noqa: ARG001
    return _potential(output[1] if isinstance(output, tuple) else None)


def _potential(state: Any) -> list[Any]:
    held = _with("v", state)
    return [] if held is None else [held.v]


def _dynamics(module: nn.Module) -> Dynamics:
    p = _parameters(module)
    reset = read(read(p, "reset_method"), "__name__", "")
    return Dynamics(
        threshold=plain(p.v_th if has(p, "v_th") else p.v_thresh),
        decay=_decay(p, read(module, "dt")),
        reset="subtract" if "subtract" in reset else "zero",
        reset_to=None if "subtract" in reset else plain(read(p, "v_reset")),
        surrogate=with_numbers(p.method, {"alpha": p.alpha}) if has(p, "method") else "",
        learnable={
            name: value
            for name, value in zip(read(p, "_fields", ()), p, strict=False)
            if isinstance(value, nn.Parameter) and value.requires_grad
        },
    )


def _decay(p: Any, dt: float | None) -> Number | None:
    if dt is None or not has(p, "tau_mem_inv") or has(p, "delta_T"):
        return None
    return 1 - dt * plain(p.tau_mem_inv)


def _membrane(module: nn.Module, output: Any) -> Membrane | None:
    spikes, state = first_tensor(output), output[1] if isinstance(output, tuple) else None
    held = _with("v", state)
    if spikes is None or held is None or spikes.is_sparse:
        return None
    v, spikes = held.v.detach(), spikes.detach()
    if v.shape == spikes.shape[1:]:
        spikes = spikes[-1]
    if v.shape != spikes.shape:
        return None
    if _ADAPTIVE.intersection(qualified_names(type(module))) and has(held, "b"):
        v = _from_base(v, held.b.detach(), spikes, module.p)
    told = _dynamics(module)
    if told.reset != "subtract" or told.threshold is None:
        return Membrane(v, pre_reset=False)
    return Membrane(v + spikes * told.threshold, pre_reset=True)


def _from_base(v: Tensor, b: Tensor, spikes: Tensor, p: Any) -> Tensor:
    """Potentials as far from `v_th` as they are from the threshold b that they were held against.

    b has taken a step of β since then where the neuron has fired.
    """
    return v - (b - spikes * plain(p.beta)) + plain(p.v_th)


LIBRARY = Library(
    "norse",
    is_spiking=_is_spiking,
    axes=_axes,
    starts_sample=_starts_sample,
    states=States(_states_before, _states_after),
    dynamics=_dynamics,
    membrane=_membrane,
    saved=saved_in("norse.torch.functional.", what="u-theta"),
)
