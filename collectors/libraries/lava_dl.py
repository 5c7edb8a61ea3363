"""lava-dl's slayer 0.6: neurons that get a whole sequence, with time last.

* Recognised by `lava.lib.dl.slayer.neuron.base.Neuron`; `sigma_delta` sends graded changes.
* Left out: the neurons of which a block uses the inner parts alone, at the beginning and the end of
  Σ-Δ networks, and of `Affine`, which does not fire.
* Returns the spikes alone, [B, *, T]. Inside the blocks `Recurrent` and `KWTA`, whose neurons keep
  their state, it is called for each time step with T = 1.
* What a block returns may be delayed; the neuron is read, not the block.
* `voltage_decay` is 4096 · (1 − β), rounded, as on Loihi; resonators (`rf`) have no single factor.
* A spike sets the voltage of `cuba` and `rf_iz` to 0; the others raise a threshold, or nothing. The
  graph holds the voltage before; after it, `cuba` and `alif` keep one with `persistent_state`.
"""

from typing import Any

from torch import Tensor, nn

from ..attributes import read
from ..library import Dynamics, Library, Membrane, Reset, first_tensor, saved_in
from .reading import learnable, plain, with_numbers


_SLAYER = "lava.lib.dl.slayer."
_PACKAGE = _SLAYER + "neuron."
_BASE = _PACKAGE + "base.Neuron"
_BLOCK = _SLAYER + "block."
_USE_PARTS = {
    _BLOCK + "sigma_delta.Input", _BLOCK + "sigma_delta.Output", _BLOCK + "base.AbstractAffine",
}  # fmt: skip
_RESETS: dict[str, Reset] = {
    "cuba": "zero", "rf_iz": "zero",
    "alif": "none", "rf": "none", "adrf": "none", "adrf_iz": "none",
}  # fmt: skip


def _is_spiking(module: nn.Module, names: list[str]) -> bool | None:  # noqa: ARG001
    if _BASE in names:
        return True
    # Blocks and delays have autograd functions of their own, which pass spikes on.
    return False if any(n.startswith(_SLAYER) for n in names) else None


def _uncalled(module: nn.Module, names: list[str]) -> frozenset[str]:
    if not _USE_PARTS.intersection(names):
        return frozenset()
    is_own = type(module).forward.__module__.startswith(_SLAYER)  # and not a user's
    return frozenset({"neuron"} if is_own else ())


def _kind(module: nn.Module) -> str:
    """The module of slayer that the neuron comes from, such as cuba or rf."""
    homes = [c.__module__ for c in type(module).__mro__ if c.__module__.startswith(_PACKAGE)]
    return homes[0].removeprefix(_PACKAGE) if homes else ""


def _axes(module: nn.Module, spikes: Tensor) -> str:
    # With T a neuron's axis of length 1, each call is one time step.
    return "B*" if spikes.shape[-1] == 1 and _persists(module) else "B*T"


def _persists(module: nn.Module) -> bool:
    return bool(read(module, "persistent_state", False))


def _dynamics(module: Any) -> Dynamics:
    leak = read(module, "voltage_decay")
    scales = {k: read(module, k) for k in ("tau_rho", "scale_rho")}
    return Dynamics(
        threshold=read(module, "threshold"),
        decay=None if leak is None else 1 - plain(leak).round() / module.p_scale,
        reset=_RESETS.get(_kind(module)),
        surrogate=with_numbers("Spike", scales),
        learnable=learnable(module, besides=("bias",)),
    )


def _membrane(module: nn.Module, output: Any) -> Membrane | None:
    spikes, v = first_tensor(output), read(module, "voltage_state")
    if spikes is None or not isinstance(v, Tensor) or not _persists(module):
        return None
    if v.shape == spikes.shape[:-1] and spikes.shape[-1] == 1:
        v = v.unsqueeze(-1)
    return Membrane(v.detach(), pre_reset=False) if v.dim() > 1 else None


LIBRARY = Library(
    "lava-dl",
    is_spiking=_is_spiking,
    uncalled=_uncalled,
    is_graded=lambda module: bool(read(module, "graded_spike", False)),
    axes=_axes,
    dynamics=_dynamics,
    membrane=_membrane,
    saved=saved_in(_SLAYER, what="u"),
)
