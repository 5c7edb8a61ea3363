"""Observers of ternary weights.

What a layer multiplies with is often a temporary that only `F.linear` or `F.conv*` ever sees, so on
an observed step a function mode is entered for the time of the layer's forward, and looks at the
weight that these functions are given. Off the observed steps there is one hook that returns at
once.
"""

import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from spikewatch.layers import Layer, named_modules, own_type
from spikewatch.observing import Counters, Counts, Histogram, Session

from .amplitudes import EDGES, alpha_counters, histogram
from .hooks import Hook, in_recomputation
from .levels import Granularity, ternary_granularity
from .recognise import reaches_compiled


_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)
_LIBRARIES_OF_PLAIN_LAYERS = ("torch.", "spikingjelly.", "snntorch.")
# Functions whose second argument, or keyword `weight`, is the weight.
_WEIGHT_FUNCTIONS = {
    torch.nn.functional.linear,
    torch.nn.functional.conv1d,
    torch.nn.functional.conv2d,
    torch.nn.functional.conv3d,
    torch.nn.functional.conv_transpose1d,
    torch.nn.functional.conv_transpose2d,
    torch.nn.functional.conv_transpose3d,
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.matmul,
    torch.mm,
    torch.Tensor.matmul,
    torch.Tensor.mm,
    torch.Tensor.__matmul__,
}
# The verdict "ternary" is latched, and looked at again after so many observed steps: weights may
# become ternary late (annealing), or stop being so.
_RECHECK_STEPS = 64
_LATENT_BINS = 64
_LATENT_RANGE = 4.0  # in units of the first mean |latent weight|


def find(
    model: nn.Module,
    *,
    named: Mapping[str, str],  # noqa: ARG001 - layers named by hand are spiking ones
    taken: frozenset[str],
) -> Sequence["WeightObserver"]:
    """An observer for each Linear or Conv layer whose weight is, or may become, ternary."""
    return [
        WeightObserver(name, module)
        for name, module in named_modules(model).items()
        if name not in taken and isinstance(module, _WEIGHTED) and _may_be_ternary(module)
    ]


def _may_be_ternary(module: nn.Module) -> bool:
    if parametrize.is_parametrized(module, "weight"):
        return True
    if not own_type(module).__module__.startswith(_LIBRARIES_OF_PLAIN_LAYERS):
        return True
    weight = module._parameters.get("weight")
    # Sharded weights are looked at where they are: asking for all of them is a collective.
    weight = getattr(weight, "_local_tensor", weight)
    # Data-swap training (TTQ) and packed inference keep ternary weights in the parameter itself.
    return (
        weight is not None
        and not weight.is_meta
        and weight.numel() > 0
        and bool((weight == 0).any())
        and ternary_granularity(weight) is not None
    )


class _SeeWeight(TorchFunctionMode):
    """Hands over the first weight that a weight function is given."""

    def __init__(self, shape: torch.Size, seen: Callable[[Tensor], None] | None) -> None:
        super().__init__()
        self._shape = shape
        self._seen = seen

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        # First, since a compiled function is bound to all that it has looked at of ours.
        if torch.compiler.is_compiling():
            return func(*args, **kwargs)
        seen = self._seen
        if seen is not None and func in _WEIGHT_FUNCTIONS:
            weight = kwargs.get("weight", args[1] if len(args) > 1 else None)
            if isinstance(weight, Tensor):
                if weight.shape == self._shape:
                    seen(weight)
                elif weight.dim() == 2 and weight.shape == self._shape[::-1]:
                    seen(weight.t())
        return func(*args, **kwargs)

    def leave(self) -> None:
        """Exit, wherever the mode is among those entered.

        After a `KeyboardInterrupt` no hook is called, so that it may be found long afterwards.
        """
        above: list[Any] = []
        while (n := torch._C._len_torch_function_stack()) and torch._C._get_function_stack_at(
            n - 1
        ) is not self:
            above.append(torch._C._pop_torch_function_stack())
        if n:
            torch._C._pop_torch_function_stack()
        for mode in reversed(above):
            torch._C._push_on_torch_function_stack(mode)


class WeightObserver:
    """Watches the quantized and the latent weight of one layer."""

    def __init__(self, name: str, module: nn.Module) -> None:
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
        self._edges: tuple[float, ...] | None = None

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
            mode = _SeeWeight(self._latent(module).shape, see)
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
                self._count(session, phase, weight.detach(), self._latent(module).detach())
        except Exception as error:  # noqa: BLE001 - contract 1
            session.fault(self.layer.name, error)
        session.spent(time.perf_counter() - began)

    def _count(self, session: Session, phase: str, weight: Tensor, latent: Tensor) -> None:
        if self._n_looked % _RECHECK_STEPS == 0:
            self._judge(session, weight)
        self._n_looked += 1
        if self._granularity is None:
            return
        positive, negative, zero = weight > 0, weight < 0, weight == 0
        finite = latent.isfinite()
        tables: dict[str, Counters] = {
            "weights": {
                "n_weights": weight.numel(),
                "n_weight_negative": negative.sum(),
                "n_weight_zero": zero.sum(),
                "n_weight_positive": positive.sum(),
                "sum_scale_positive": weight.where(positive, 0).sum(dtype=torch.float64),
                "sum_scale_negative": -weight.where(negative, 0).sum(dtype=torch.float64),
                # Where the parameter itself is ternary there is no latent weight to compare with.
                "delta": None if latent is weight else latent.abs().where(zero, 0).amax(),
                "n_nonfinite_weights": latent.numel() - finite.sum(),
            }
        }
        scales = _row_scales(weight, by_row=self._granularity != "tensor")
        tables["amplitudes"] = alpha_counters(scales)
        histograms = [histogram("alpha", scales, EDGES), self._latent_histogram(latent)]
        self._counted[phase] = Counts(tables, histograms)

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

    def _latent_histogram(self, latent: Tensor) -> Histogram:
        if self._edges is None:
            reach = _LATENT_RANGE * max(float(latent.abs().mean().nan_to_num(0.0)), 1e-12)
            step = 2 * reach / _LATENT_BINS
            self._edges = tuple(step * k - reach for k in range(_LATENT_BINS + 1))
        return histogram("latent_weight", latent, self._edges)

    def flush(self, phase: str) -> Counts | None:
        """Counters of `weights` and `amplitudes`; None where the weight is not ternary."""
        return self._counted.pop(phase, None)


def _row_scales(weight: Tensor, *, by_row: bool) -> Tensor:
    """Mean |w| over the nonzero weights: of all, or of each output row. Rows of zeros give 0."""
    rows = weight.flatten(1) if by_row else weight.reshape(1, -1)
    n = rows.ne(0).sum(1)
    return rows.abs().sum(1, dtype=torch.float64) / n.clamp(min=1)
