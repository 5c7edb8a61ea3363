"""The observer of one layer's quantized weights.

On an observed step it looks once, in the layer's first forward pass, at the weight that the layer
multiplies with. Off the observed steps there is one hook that returns at once.
"""

import threading
import time
import weakref
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from spikewatch.layers import Layer, own_type
from spikewatch.observing import Counts, Session

from ..hooks import Hook, in_recomputation
from ..levels import Granularity, ternary_granularity
from ..recognise import reaches_compiled
from .instruments import INSTRUMENTS, Weights
from .precision import Place
from .seeing import SeeWeight


# The verdict "ternary" is latched, and looked at again after so many observed steps: weights may
# become ternary late (annealing), or stop being so.
_RECHECK_STEPS = 64


class WeightObserver:
    """Watches the quantized and the latent weight of one layer."""

    def __init__(self, name: str, module: nn.Module, *, place: Place | None = None) -> None:
        self._place = place
        self.layer = Layer(
            name=name,
            kind="candidate",
            library=own_type(module).__module__.split(".")[0],
            type=own_type(module).__name__,
            note="its weights are looked at in the first step",
        )
        # A compiled function is compiled anew where the modes that it is called under differ.
        self.always_on = reaches_compiled(module)
        self.called = False
        self._module = weakref.ref(module)
        self._handles: list[Any] = []
        self._session: Session | None = None
        self._open = threading.local()  # DataParallel runs replicas in threads of their own
        self._counted: dict[str, Counts] = {}
        self._granularity: Granularity | None = None
        self._n_looked = 0
        self._instruments = [make() for make in INSTRUMENTS]

    def start(self, session: Session) -> None:
        """Put the hooks on."""
        self._session = session
        if not self._handles and (module := self._module()) is not None:
            self._handles = [
                module.register_forward_pre_hook(Hook(self._before, self)),
                module.register_forward_hook(Hook(self._after, self), always_call=True),
            ]

    def stop(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._stop_looking()

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:  # noqa: ARG002
        session = self._session
        if session is None:
            return
        session.touch()
        looks = session.active and not in_recomputation()
        self.called |= looks
        if not (looks or self.always_on):
            return
        try:
            phase = session.phase() if looks else ""
            looks = looks and phase not in self._counted  # called again: the weights are the same
            if not (looks or self.always_on):
                return
            self._stop_looking()
            see = partial(self._look, module, phase) if looks else None
            mode = SeeWeight(self._latent(module).shape, see)
            mode.__enter__()
            self._open.mode = mode
        except Exception as error:  # noqa: BLE001 - contract 1
            session.fault(self.layer.name, error)

    def _after(self, *_: Any) -> None:
        self._stop_looking()

    def _stop_looking(self) -> None:
        mode = getattr(self._open, "mode", None)
        if mode is not None:
            self._open.mode = None
            mode.leave()

    @staticmethod
    def _latent(module: nn.Module) -> Tensor:
        if parametrize.is_parametrized(module, "weight"):
            original = getattr(module.parametrizations["weight"], "original", None)  # ty: ignore[not-subscriptable, invalid-argument-type]
            if isinstance(original, Tensor):
                return original
        weight = module.weight
        assert isinstance(weight, Tensor)  # noqa: S101 - every Linear and Conv has one
        return weight

    def _look(self, module: nn.Module, phase: str, weight: Tensor) -> None:
        session = self._session
        if session is None or phase in self._counted:
            return
        began = time.perf_counter()
        try:
            with torch._C.DisableTorchFunction(), torch.no_grad():
                source = self._latent(module)
                # Where the parameter itself is quantized, it or a transposed view is multiplied.
                same = weight is source or weight._base is source
                latent = source.detach()
                weight = latent if same else weight.detach()
                self._count(session, module, phase, weight, latent)
        except Exception as error:  # noqa: BLE001 - contract 1
            session.fault(self.layer.name, error)
        session.spent(time.perf_counter() - began)

    def _count(
        self, session: Session, module: nn.Module, phase: str, weight: Tensor, latent: Tensor
    ) -> None:
        if self._n_looked % _RECHECK_STEPS == 0:
            self._judge(session, weight)
        self._n_looked += 1
        instruments = [
            i for i in self._instruments if self._granularity is not None or i.before_levels
        ]
        weights = Weights(
            weight,
            latent,
            self._granularity,
            module,
            phase=phase,
            step=session.step,
            detailed=session.detailed,
            most_tracked=session.track_weights,
            place=self._place,
        )
        counts = Counts({})
        for instrument in instruments:
            _add(counts, instrument.read(weights))
        if counts.tables:
            self._counted[phase] = counts

    def _judge(self, session: Session, weight: Tensor) -> None:
        was, self._granularity = self._granularity, ternary_granularity(weight)
        if self._granularity is not None and self.layer.kind == "candidate":
            note = (
                "one scale" if self._granularity == "tensor" else f"a scale a {self._granularity}"
            )
            self.layer = replace(self.layer, kind="ternary", note=note)
            session.confirm(self.layer)
        elif self._granularity is None and (was is not None or self._n_looked == 0):
            session.note(self.layer.name, "its weights are not ternary now; looked at again later")

    def flush(self, phase: str) -> Counts | None:
        """Counters of all instruments; None where the weight is not ternary."""
        counts = self._counted.pop(phase, None)
        session, module = self._session, self._module()
        ended = phase == "train" and session is not None and session.detailed
        if counts is None or not ended or module is None:
            return counts
        with torch._C.DisableTorchFunction(), torch.no_grad():
            latent = self._latent(module).detach()
            for instrument in self._instruments:
                _add(counts, instrument.end(module, latent))
        return counts


def _add(whole: Counts, part: Counts | None) -> None:
    if part is None:
        return
    for table, counters in part.tables.items():
        whole.tables.setdefault(table, {}).update(counters)
    whole.histograms += part.histograms
