"""Listening: which hooks are on a model, and when. One that returns at once costs something."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from .layers import called_parts
from .observing import Observer, load_hook
from .session import LiveSession


class Listening:
    """Puts hooks on a model and takes them off: the model's own, its parts', the observers'.

    Attributes:
        root: The hook that is called before each forward pass of the model itself.
        root_is_called: Whether that tells of all forward passes; else parts of the model are called
            by themselves, and all hooks stay on.
        is_on: Whether the observers listen.
        always_on: Whether a compiler came by: it would compile anew for a hook that comes or goes.
    """

    def __init__(
        self,
        observers: Sequence[Observer],
        session: LiveSession,
        *,
        before: Callable[..., None],
        after: Callable[..., None],
        after_part: Callable[..., None],
    ) -> None:
        """Take who listens, and what is to be called before and after the model's forward pass.

        `after_part` is called after those of parts, until the model itself is called.
        """
        self.root: Any = load_hook().of_root(before, self)
        self.root_is_called = self.is_on = self.always_on = False
        self._model: Callable[[], nn.Module | None] = lambda: None
        self._observers = observers
        self._session = session
        self._after, self._after_part = after, after_part
        self._before_hook: Any = None  # the root's handle
        self._after_hook: Any = None
        self._part_hooks: list[Any] = []
        self._detailed = False

    @property
    def hears_end(self) -> bool:
        """Whether the end of each forward pass of the model itself is told."""
        return self._after_hook is not None

    @property
    def model(self) -> nn.Module | None:
        """The model, while it lives."""
        return self._model()

    def start(self, model: nn.Module) -> None:
        """Put on what tells of forward passes."""
        self._model = weakref.ref(model)
        self._before_hook = self.root.put_on(model)
        self._listen_to_parts(model)

    def follow(self, model: nn.Module, new: Sequence[Observer]) -> None:
        """The model has changed; these are new among the observers."""
        if not self.root_is_called:
            for handle in self._part_hooks:
                handle.remove()
            self._part_hooks = []
            self._listen_to_parts(model)
        for observer in new if self.is_on else ():
            observer.start(self._session)

    def _listen_to_parts(self, model: nn.Module) -> None:
        before = load_hook()(lambda *_: self._session.touch(), self)
        after = load_hook()(self._after_part, self)
        for part in called_parts(model):
            self._part_hooks.append(part.register_forward_pre_hook(before))
            self._part_hooks.append(part.register_forward_hook(after, always_call=True))

    def stop(self) -> None:
        """Take every hook off the model."""
        self.root.let_go()
        for handle in (self._before_hook, self._after_hook, *self._part_hooks):
            if handle is not None:
                handle.remove()
        for observer in self._observers:
            observer.stop()
        self.is_on = self._detailed = False

    def see_root(self) -> None:
        """The model itself is called: no need to listen to its parts."""
        self.root_is_called = True
        for handle in self._part_hooks:
            handle.remove()
        self._part_hooks = []

    def listen(self, *, on: bool) -> None:
        """Have the observers listen, or not; to all, where dear readings are due.

        They do not between observed steps, where the root's own hooks tell of each forward pass.
        """
        detailed = on and self._session.detailed
        if (on, detailed) == (self.is_on, self._detailed):
            return
        self.is_on, self._detailed = on, detailed
        self._listen_to_end(on=on)
        for observer in self._observers:
            # Where a compiler came by, hooks that come and go would have it compile once more.
            if not getattr(observer, "always_on", False):
                observer.stop()
            if on:
                observer.start(self._session)

    def _listen_to_end(self, *, on: bool) -> None:
        """Have the end of each forward pass told, or not: it matters in observed ones only."""
        if on and self._after_hook is None and (model := self._model()) is not None:
            hook = load_hook()(self._after, self)
            self._after_hook = model.register_forward_hook(hook, always_call=True)
        elif not on and self._after_hook is not None and not self.always_on:
            self._after_hook.remove()
            self._after_hook = None
