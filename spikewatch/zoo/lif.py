"""The leaky integrate-and-fire neuron in discrete time."""

from typing import Literal

import torch
from torch import Tensor, nn

from .surrogates import ATan, Surrogate, spike


class LIF(nn.Module):
    """One time step of a leaky integrate-and-fire neuron: charge, fire, reset.

        charge  u[t] = β·v[t−1] + I[t]
        fire    s[t] = Θ(u[t] − θ)
        reset   v[t] = u[t] − θ·s[t]        soft: what exceeds θ is kept
                v[t] = u[t]·(1 − s[t])      hard: it is lost

    u is the membrane potential that is compared with the threshold, v what is left of it: a
    recording of the one differs from that of the other wherever a spike was fired. The decay
    β = exp(−Δt/τ) acts on v, so a soft reset subtracts β·θ from the next potential. snnTorch decays
    u and then subtracts θ, and so fires a little less: by 5 to 9 % at β = 0.9, for uniform input.

    The form u[t] = β·u[t−1]·(1 − s[t−1]) + I[t] is the hard reset of this one, spike for spike.

    A soft reset loses less of a strong input: with the one above, the neurons' spike counts
    correlate with their summed inputs by 0.998, with a hard reset by 0.987. That it is
    indispensable for language has not been shown.

    The state is passed in and out, as in `spk, mem = lif(cur, mem)`: nothing is kept between
    calls, so copying and saving the module is safe at any time.

    Args:
        beta: Decay β = exp(−Δt/τ) of the membrane, in [0, 1].
        threshold: θ.
        reset: `soft` or `hard`.
        surrogate: Derivative that stands in for that of Θ.
        learn_threshold: Make θ a parameter.
        learn_beta: Make β a parameter (PLIF; Fang et al. 2021), used clamped to [0, 1].
        detach_reset: Let no gradient flow through the reset (most libraries' default).
            Otherwise the reset that a spike causes works against its gradient.
    """

    def __init__(
        self,
        beta: float = 0.9,
        *,
        threshold: float = 1.0,
        reset: Literal["soft", "hard"] = "soft",
        surrogate: Surrogate | None = None,
        learn_threshold: bool = False,
        learn_beta: bool = False,
        detach_reset: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= beta <= 1:
            raise ValueError(f"β was {beta}; a decay is between 0 and 1")
        if reset not in ("soft", "hard"):
            raise ValueError(f"reset was {reset!r}; it is 'soft' or 'hard'")
        self.beta: Tensor | float = nn.Parameter(torch.tensor(beta)) if learn_beta else beta
        self.reset = reset
        self.detach_reset = detach_reset
        self.surrogate: Surrogate = surrogate or ATan()
        self.threshold: Tensor
        if learn_threshold:
            self.threshold = nn.Parameter(torch.tensor(threshold))
        else:
            self.register_buffer("threshold", torch.tensor(threshold))

    def forward(self, current: Tensor, mem: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Advance by one time step.

        Args:
            current: Input current I, shape (batch, *neurons).
            mem: v of the step before, same shape; None at the start of a sequence.

        Returns:
            Spikes in {0, 1} and v, both of the shape and dtype of `current`.
        """
        beta = self.beta.clamp(0, 1) if isinstance(self.beta, Tensor) else self.beta
        potential = current if mem is None else beta * mem + current
        spikes = spike(potential - self.threshold, self.surrogate)
        fired = spikes.detach() if self.detach_reset else spikes
        if self.reset == "soft":
            return spikes, potential - self.threshold * fired
        return spikes, potential * (1 - fired)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        beta = self.beta.item() if isinstance(self.beta, Tensor) else self.beta
        theta = self.threshold.item()
        return f"beta={beta:g}, threshold={theta:g}, reset={self.reset!r}"


def over_time(lif: LIF, currents: Tensor) -> Tensor:
    """Spikes of a whole sequence, from an empty membrane.

    Args:
        lif: Called once for each time step.
        currents: Shape (T, batch, *neurons).

    Returns:
        Spikes of the same shape.
    """
    spikes, mem = [], None
    for current in currents.unbind(0):
        fired, mem = lif(current, mem)
        spikes.append(fired)
    return torch.stack(spikes)
