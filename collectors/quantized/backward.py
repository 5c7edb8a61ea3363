"""Listening for ∂L/∂w_t: the gradient that the backward pass brings to a quantized weight.

It passes by once for each forward pass that has multiplied with the weight, so in the steps that
have the dear readings all of them are listened to, though the weight is counted in the first only.
"""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from spikewatch.observing import Session

from ..hooks import Hook
from .reading import WeightInstrument


class Backward:
    """Hands ∂L/∂w_t of one layer to its instruments.

    Attributes:
        listens: Whether gradients of this step are listened to.
    """

    def __init__(self, instruments: Sequence[WeightInstrument], layer: Callable[[], str]) -> None:
        self.listens = False
        self._instruments = instruments
        self._layer = layer
        self._is_partial = False

    def await_gradient(
        self,
        session: Session,
        owner: nn.Module,
        tensor: Tensor,
        view: Callable[[Tensor], Tensor],
    ) -> None:
        """Have the gradient of a weight read that was just multiplied with.

        Args:
            session: That of a training step.
            owner: The module that keeps the latent weight.
            tensor: The quantized weight, with its graph.
            view: Makes shape (out, *) of it, and of its gradient; holds no graph.
        """
        if not session.detailed or tensor.grad_fn is None:
            return
        self.listens = True
        quantized = view(tensor.detach())

        def read(gradient: Tensor) -> None:
            if self._is_partial:
                return
            began = time.perf_counter()
            try:
                with torch.no_grad():
                    for instrument in self._instruments:
                        instrument.gradient(owner, quantized, view(gradient.detach()))
            except Exception as error:  # noqa: BLE001 - contract 1: never raise into training
                session.fault(self._layer(), error)
            session.spent(time.perf_counter() - began)

        tensor.register_hook(Hook(read))

    def pass_by(self) -> None:
        """Take note of another product with the layer's weight, whose gradient is not heard."""
        self._is_partial = True

    def end(self) -> None:
        """The step is over."""
        self.listens = self._is_partial = False
