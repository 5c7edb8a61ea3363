"""Catching the weights that a module really multiplies with.

They are often temporaries that only `F.linear` and its kin ever see, so on an observed step a
function mode is entered for the time of the module's forward pass. It comes before everything that
asks the layer (`adapters`): what it sees is what is used, and it neither calls a quantizer once
more, which may count or draw random numbers, nor needs to know any. Where Python does not see the
product, in a ScriptModule or within a tensor type of a library's own, a dispatch mode does.
"""

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _python_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from spikewatch.layers import Layer
from spikewatch.observing import Session
from spikewatch.unheard import unheard

from ..hooks import Hook, in_recomputation, why_unreadable
from ..modes import SeeCalls, would_be_fused
from ..reachable import reaches_compiled
from .look import Look
from .operands import (
    Operand,
    agreement,
    comes_from,
    fit,
    multiplies,
    multiplies_inside,
    operands,
    outputs_first,
)


class Watched(Protocol):
    """A layer for whose weight a module's products are looked at."""

    layer: Layer

    def look(
        self, session: Session, module: nn.Module, args: tuple[Any, ...], phase: str
    ) -> Look | None:
        """What a forward pass is to be looked at for; None where for nothing."""


class SeeInside(TorchDispatchMode):
    """The same below autograd, where ScriptModules and libraries' own tensor types are seen."""

    def __init__(self, offer: Callable[..., bool]) -> None:
        super().__init__()
        self._offer = offer

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if multiplies_inside(func):
            self._offer(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def leave(self) -> None:
        """Exit, wherever the mode is among those entered."""
        above: list[Any] = []
        while (n := torch._C._len_torch_dispatch_stack()) and torch._C._get_dispatch_stack_at(
            n - 1
        ) is not self:
            above.append(_python_dispatch._pop_mode())
        if n:
            _python_dispatch._pop_mode()
        for mode in reversed(above):
            _python_dispatch._push_mode(mode)


_claims = threading.local()


class Sight:
    """Sees what one module multiplies with, in the observed steps.

    Attributes:
        always_on: Whether its hooks have to stay on between these.
    """

    def __init__(self, module: nn.Module) -> None:
        # A compiled function is compiled anew where the modes that it is called under differ.
        self.always_on = reaches_compiled(module)
        self._scripted = isinstance(module, torch.jit.ScriptModule)
        self._module = weakref.ref(module)
        self._observers: list[Watched] = []
        self._handles: list[Any] = []
        self._session: Session | None = None
        self._open = threading.local()  # DataParallel runs replicas in threads of their own

    @property
    def module(self) -> nn.Module | None:
        """The module, while it lives."""
        return self._module()

    def add(self, observer: Watched) -> None:
        """Look for one more of the module's weights."""
        self._observers.append(observer)

    def start(self, session: Session) -> None:
        """Put the hooks on."""
        self._session = session
        if not self._handles and (module := self._module()) is not None:
            self._handles = [
                module.register_forward_pre_hook(Hook(self._before, self, handles_modes=True)),
                module.register_forward_hook(
                    Hook(self._after, self, handles_modes=True), always_call=True
                ),
            ]

    def stop(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._leave()

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        session = self._session
        if session is None:
            return
        session.touch()
        observed = session.active and not in_recomputation() and not would_be_fused(module)
        if not (observed or self.always_on):
            return
        try:
            with unheard():
                looks = self._looks(session, module, args) if observed else []
            if not (looks or self.always_on):
                return
            self._leave()
            self._open.looks = looks
            mode: SeeCalls | SeeInside
            if looks and (self._scripted or any(look.is_hidden for look in looks)):
                mode = SeeInside(self._offer)
            else:
                mode = SeeCalls(self._offer if looks else None, multiplies, _claims)
            mode.__enter__()
            self._open.mode = mode
        except Exception as error:  # noqa: BLE001 - contract 1
            session.fault(self._observers[0].layer.name, error)

    def _looks(self, session: Session, module: nn.Module, args: tuple[Any, ...]) -> list[Look]:
        phase = session.phase()
        looks = [observer.look(session, module, args, phase) for observer in self._observers]
        return [look for look in looks if look is not None]

    def _after(self, *_: Any) -> None:
        looks = self._leave()
        seen = {look.shape for look in looks if look.has_seen}
        with unheard():
            for look in looks:
                look.settle(another_seen=look.shape in seen)

    def _leave(self) -> list[Look]:
        mode, looks = getattr(self._open, "mode", None), getattr(self._open, "looks", [])
        if mode is None:
            return []
        self._open.mode, self._open.looks = None, []
        mode.leave()
        _claims.taken = False
        return looks

    def _offer(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Hand an operand to the one whose weight it is; returns whether it is one's."""
        session, looks = self._session, getattr(self._open, "looks", [])
        if session is None:
            return False
        try:
            with unheard():
                for operand in operands(func, args, kwargs):
                    look = _whose(operand, looks)
                    if look is not None and not why_unreadable(operand.tensor):
                        look.offer(operand)
                        return True
        except Exception as error:  # noqa: BLE001 - contract 1
            session.fault(self._observers[0].layer.name, error)
        return False


def _whose(operand: Operand, looks: Sequence[Look]) -> Look | None:
    """The look whose weight an operand is, if it is one's."""
    fitting = [look for look in looks if fit(operand, look.shape)]
    if not fitting:
        return None
    origins = [_origin(operand.tensor, look) for look in fitting]
    if True in origins:
        # Of what is not trained the graph says nothing: scores may choose among fixed weights.
        fitting = [f for f, o in zip(fitting, origins, strict=True) if o or f.is_fixed]
        return _likest(operand, fitting)
    if operand.role != "weight":
        # Of a product, either side may be an activation: few levels say that it is a weight.
        fitting = [f for f, o in zip(fitting, origins, strict=True) if o is None]
        if not fitting:
            return None
        weight = outputs_first(operand, fitting[0].shape)
        if not fitting[0].has_levels(weight, stacked=operand.is_stack):
            return None
    else:
        fitting = [f for f, o in zip(fitting, origins, strict=True) if o is None or f.is_own]
    return _likest(operand, fitting)


def _likest(operand: Operand, fitting: Sequence[Look]) -> Look | None:
    if len(fitting) < 2:
        return fitting[0] if fitting else None
    weight = outputs_first(operand, fitting[0].shape).detach()
    return max(fitting, key=lambda look: _likeness(weight, look))


def _origin(tensor: Tensor, look: Look) -> bool | None:
    return None if look.latent is None else comes_from(tensor, look.latent)


def _likeness(weight: Tensor, look: Look) -> float:
    latent = look.latent
    if latent is None:
        return 0.0
    latent = latent.detach()
    options = (latent, latent.mT) if latent.dim() > 1 else (latent,)
    return max((agreement(weight, x) for x in options if x.shape == weight.shape), default=0.0)
