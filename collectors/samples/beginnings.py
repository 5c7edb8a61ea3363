"""Whether a sample begins with a call of a module, as its library or its state says beforehand."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from spikewatch.observing import Session

from ..calls import Place
from ..functional.places import caller_of_module, place_of
from ..hooks import in_recomputation
from ..libraries import user
from ..library import Library, unknown_start
from ..standing import Standing
from .kept_state import KeptState
from .left_behind import LeftBehind


_PATIENCE_STEPS = 8  # with a layer that might be called at a second place: to ask costs 5 µs
_NO_KEYWORDS: Mapping[str, Any] = {}


class Beginnings:
    """Asks before each call of one layer, and keeps the answer until the call is read."""

    def __init__(self, library: Library, standing: Standing) -> None:
        """Take the layer's library, and what it is known as."""
        self.asks = library.starts_sample is not unknown_start
        """Whether there is anything to ask."""
        self._library = library
        self._standing = standing
        self._is_users = library is user.LIBRARY
        self._left = (
            None if library.states is None else LeftBehind(library.states, is_users=self._is_users)
        )
        self._kept = KeptState()  # of users' modules, under names that tell nothing
        self._follows = False  # the call that runs
        self._starts: bool | None = None
        self._places = _Places()

    def before_forward(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] = _NO_KEYWORDS
    ) -> None:
        """The hook: the layer is about to be called."""
        # Of a model that is a neuron itself, the root's hook may take this one off just now. Then
        # torch calls it nevertheless, and without the keyword arguments.
        session = self._standing.session
        if session is None or not session.active:
            return
        name = self._standing.layer.name
        try:
            starts = self._library.starts_sample(module, args, kwargs)
            if self._left is not None:
                starts = self._left.starts(session, name, (module, args, kwargs), starts)
            self._follows = starts is None and self._is_users and not in_recomputation()
            if self._follows:
                starts = self._kept.enter(session, name, module)
            self._starts = session.begins_sample(name, starts)
        except Exception as error:  # noqa: BLE001 - contract 1: never raise into training
            session.fault(name, error)

    def forget(self) -> None:
        """The call is over, and is read without the answer."""
        self._starts = None

    def answer(
        self, session: Session, module: nn.Module | None, output: Any, spikes: Tensor
    ) -> tuple[bool | None, Place | None]:
        """The call is over: whether a sample began with it, and the place where it was made."""
        starts, self._starts = self._starts, None
        if module is None or not session.detailed:
            return starts, None
        keeps_state = True
        if self._left is not None:
            self._left.leave(session, module, output)
        if self._follows:
            self._kept.leave(session, module, spikes.shape, has_graph=spikes.requires_grad)
        if starts is None and self._is_users:
            keeps_state = bool(user.states_after(module, output))
        if keeps_state and self._places.is_one:
            return starts, None
        chain, owner = place_of(caller_of_module(), None)
        if owner is None:
            return starts, None
        place = Place((chain, id(owner)), keeps_state)
        self._places.add(session.step, place)
        return starts, place


class _Places:
    """Whether a layer was called at one place only, step by step: then it is not asked any more."""

    def __init__(self) -> None:
        self.is_one = False
        self._seen: set[Place] = set()
        self._step = -1
        self._n_steps = 0

    def add(self, step: int, place: Place) -> None:
        """Take in the place of a call."""
        if step != self._step:
            self.is_one = self._n_steps >= _PATIENCE_STEPS and len(self._seen) == 1
            self._step, self._n_steps = step, self._n_steps + 1
        if len(self._seen) < 2:
            self._seen.add(place)
