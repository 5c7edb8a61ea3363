"""All observers of one model: those that collectors found, and those of tapped tensors."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from .finding import in_order
from .layers import Layer
from .observing import Counts, Observer, load_tap
from .session import LiveSession
from .unheard import unheard


class Observers:
    """What listens in a model, as one.

    Attributes:
        found: Those that collectors found.
        session: What they work for.
    """

    def __init__(self, found: Sequence[Observer], session: LiveSession) -> None:
        self.found = list(found)
        self._taps: dict[str, Any] = {}
        self.session = session

    def __iter__(self) -> Iterator[Observer]:
        """Those that were found, then those of taps."""
        return iter([*self.found, *self._taps.values()])

    @property
    def layers(self) -> list[Layer]:
        """What they watch, in the model's order; layers found within another one after it."""
        found = [y for x in self for y in (x.layer, *getattr(x, "inner_layers", ()))]
        return [layer for layer in found if layer.kind != "synapse"]

    @property
    def are_of_spikes(self) -> bool:
        """Whether a layer is among those found that makes spikes."""
        return any(x.layer.kind in ("spiking", "tap") for x in self.found)

    def place(self) -> None:
        """Store the layers that were found, each at its place in the model."""
        self._place(self.found)

    def replace(
        self, leave: Sequence[Observer], come: Sequence[Observer], model: nn.Module
    ) -> None:
        """Listen to some no more, and to others from now on: the model has changed."""
        gone = {id(observer) for observer in leave}
        for observer in leave:
            observer.stop()
        stay = [o for o in self.found if id(o) not in gone]
        self.found[:] = in_order([*stay, *come], model)
        self._place(come)

    def _place(self, new: Sequence[Observer]) -> None:
        inner = [x for o in self for x in getattr(o, "inner_layers", ())]
        taps = [o.layer for o in self._taps.values()]
        moved = self.session.place([*(o.layer for o in self.found), *inner, *taps])
        for layer in [*moved, *(o.layer for o in new)]:
            if layer.kind not in ("candidate", "synapse"):
                self.session.confirm(layer)

    def tap(self, name: str, tensor: Tensor) -> None:
        """Watch a tensor that the user taps; see `spikewatch.tap`."""
        tapped = self._taps.get(name)
        if tapped is None:
            tapped = self._taps[name] = load_tap()(name)
            tapped.start(self.session)
            self.session.confirm(tapped.layer)
        with unheard():  # as in a hook
            tapped.observe_tensor(tensor)

    def flush(self, phase: str) -> list[tuple[str, Counts]]:
        """What each has counted of a phase since its last flush, by the name of its layer."""
        counts: list[tuple[str, Counts]] = []
        for observer in self:
            counted = observer.flush(phase)
            if counted is not None:
                name = observer.layer.name
                counts.append((name, counted))
                counts += [(name + suffix, site) for suffix, site in counted.sites.items()]
        return counts

    def forget(self, phase: str) -> None:
        """Drop what each has counted of a phase since its last flush."""
        for observer in self:
            forget = getattr(observer, "forget", observer.flush)
            forget(phase)
