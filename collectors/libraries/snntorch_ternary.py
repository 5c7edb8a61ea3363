"""snntorch-ternary 0.1: a neuron with two thresholds, on top of snnTorch.

* Recognised by its package in the MRO, before snnTorch is asked.
* Returns, keeps its state and starts samples as snnTorch does; called for each time step, [B, *].
* Two surrogates, at u − θ and −u − θ₋, make one spike; so the potential is read from `mem`.
* Its own surrogate is a sign in forward: spikes are −2, 0 and +2; with snnTorch's, −1, 0 and +1.
"""

from torch import nn

from ..library import Library
from .snntorch import dynamics, membrane, starts_sample


_PACKAGE = "snntorch_ternary.neurons."


def _is_spiking(module: nn.Module, names: list[str]) -> bool | None:  # noqa: ARG001
    return True if any(n.startswith(_PACKAGE) for n in names) else None


LIBRARY = Library(
    "snntorch-ternary",
    is_spiking=_is_spiking,
    starts_sample=starts_sample,
    dynamics=dynamics,
    membrane=membrane,
    saved="other",
    amplitude="graded_spikes_factor",
)
