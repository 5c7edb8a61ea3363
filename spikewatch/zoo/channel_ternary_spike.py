"""Ternary spikes with an amplitude and a threshold of its own for each channel."""

import torch
from torch import Tensor, nn

from .surrogates import ATan, Surrogate
from .ternary_spike import TernarySign


THRESHOLD_RANGE = (0.01, 10.0)


class ChannelTernarySpike(nn.Module):
    """y_c = a_c·sign(x_c)·Θ(|x_c| − θ_c), with a_c and θ_c parameters.

    Of the form in circulation, three things are wrong. Its α is used under `no_grad`, has no
    gradient (`alpha.grad is None`) and never learns; θ here gets ∂y/∂θ = −a·sign(x)·σ′(|x| − θ).
    Its x gets the upstream gradient as it is, at any distance and whatever the amplitude; here
    that is times a·σ′(|x| − θ). And its θ is a mean over batch and sequence: with other samples
    beside it half of the outputs changed, the last token changed the first one's, and a token by
    itself, as in decoding, has θ = |x| and never fires. Here θ depends on nothing but training: a
    token's spikes are the same alone, in any batch, and whatever comes after.

    It wants x of about unit scale, as a normalisation makes it.

    Args:
        channels: Size of the last dimension.
        amplitude: Initial a of each channel.
        threshold: Initial θ of each channel. Used clamped to [0.01, 10]; beyond, it gets no
            gradient.
        surrogate: σ′.
    """

    def __init__(
        self,
        channels: int,
        *,
        amplitude: float = 1.0,
        threshold: float = 0.5,
        surrogate: Surrogate | None = None,
    ) -> None:
        super().__init__()
        self.amplitude = nn.Parameter(torch.full((channels,), amplitude))
        self.threshold = nn.Parameter(torch.full((channels,), threshold))
        self.surrogate: Surrogate = surrogate or ATan()

    def forward(self, x: Tensor) -> Tensor:
        """Make spikes.

        Args:
            x: Pre-activation, shape (*, channels).

        Returns:
            Spikes in {−a_c, 0, +a_c}, same shape and dtype.
        """
        theta = self.threshold.clamp(*THRESHOLD_RANGE).to(x.dtype)
        return self.amplitude.to(x.dtype) * TernarySign.apply(x, theta, self.surrogate)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"channels={self.amplitude.numel()}"
