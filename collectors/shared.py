"""What the observers of one model's spiking layers share, and what of that follows the model."""

import weakref
from collections.abc import Iterable
from typing import Any

from torch import nn

from .functional.running import Running
from .layouts.leading_axes import LeadingAxes
from .recognise import output_widths


class Shared:
    """Knowledge of a model that one layer's observer has no use for alone.

    Attributes:
        claims: The nodes that inner layers claim.
        running: Who calls functions; None without a model, as for a tap.
        widths: How many outputs the model's layers have.
        spiking: Classes that have shown to make spikes.
        leading: What is known of the leading axes of its layers.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self.claims: weakref.WeakSet[Any] = weakref.WeakSet()
        self.running = None if model is None else Running(model)
        self.widths: set[int] = set()
        self.spiking: set[type] = set()
        self.leading = LeadingAxes()

    def follow(self, model: nn.Module, neurons: Iterable[nn.Module]) -> None:
        """Take a model as it is now, with those of its modules that are neurons for sure."""
        self.widths.clear()
        self.widths.update(output_widths(model))
        self.leading.follow(model)
        if self.running is not None:
            self.running.follow(model, neurons)
