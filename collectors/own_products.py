"""Observers of the products that a module makes by itself, not through a weight layer.

Of attention, and with weights that it keeps and hands to `F.linear` and its kin. In the observed
steps that have the dear readings, a function mode is entered for the time of its forward pass.
"""

import math
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from spikewatch.layers import Layer, own_type
from spikewatch.observing import Counts, Session
from spikewatch.unheard import unheard

from .fan_out import FanOut, axes_of, reach_of
from .hooks import Hook, in_recomputation, why_unreadable
from .modes import SeeCalls, would_be_fused
from .operations import Operations
from .products import NAMES, Product, is_product, products
from .quantized.finding import kernels_of
from .quantized.kernels import Kernel
from .quantized.operands import Operand, comes_from, fit, is_made_of_weights
from .reachable import has_compiled_part, names_in_code, reaches_compiled
from .sparse_weights import fan_out_of_entries, is_sparse


WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)
# Their neurons multiply with weights of their own; SpikingJelly has attention beside them.
_LIBRARIES = ("torch.", "spikingjelly.", "snntorch.")
_ATTENTION = (
    "spikingjelly.activation_based.layer.attention",
    "spikingjelly.activation_based.model.",
)
# Of a type of a library's own nothing is known; to read a sharded tensor is a collective.
_PLAIN = (Tensor, nn.Parameter)
_MOST_SHAPES = 8
_SIZES = (("in_features", "out_features"), ("in_channels", "out_channels"))
_UNSEEN = (
    "its operations are not counted, and are missing in the energy of the model: it was called, "
    "and no product of its weights was seen. Seen are torch's linear, convolutions, matmul, mm, "
    "bmm, einsum, and torch.sparse.mm"
)
_claims = threading.local()


def find(modules: Mapping[str, nn.Module], *, several: bool) -> Iterator["ProductObserver"]:
    """An observer for each module whose code multiplies by itself; `several`: see `Operations`."""
    own = {
        name: module
        for name, module in modules.items()
        if not isinstance(module, (*WEIGHTED, torch.jit.ScriptModule))
        and not _is_passed_over(own_type(module).__module__)
    }
    for name, kernels in kernels_of(own):
        module = own[name]
        kept = [k for k in kernels if not k.plain and k.shape is None]
        kept += _small(name, module, {k.attribute for k in kept if not k.path})
        wanted = kept or names_in_code(module) & NAMES or _is_synapse(module)
        if wanted and not reaches_compiled(module):
            yield ProductObserver(name, module, kept, several=several)


def _is_synapse(module: nn.Module) -> bool:
    """Whether a module says how many inputs and outputs it has, and has weights for them itself."""
    held = vars(module)
    sized = any(isinstance(held.get(a), int) and isinstance(held.get(b), int) for a, b in _SIZES)
    inner = any(isinstance(m, WEIGHTED) for m in nn.Module.modules(module))
    return sized and not inner and bool(module._parameters or module._buffers)


def _is_passed_over(home: str) -> bool:
    return home.startswith(_LIBRARIES) and not home.startswith(_ATTENTION)


def _small(name: str, module: nn.Module, known: Collection[str]) -> Iterator[Kernel]:
    """Matrices too small to ask whether they are quantized."""
    for attribute, parameter in module._parameters.items():
        if parameter is None or is_lazy(parameter) or attribute in known:
            continue
        if parameter.dim() > 1:
            layer = name if attribute == "weight" else f"{name}.{attribute}".lstrip(".")
            yield Kernel(layer, attribute=attribute)


class ProductObserver:
    """Counts the operations of one module's own products."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        kernels: Sequence[Kernel],
        *,
        several: bool,
        fires: Callable[[nn.Module], bool] | None = None,
    ) -> None:
        """Take the module, its weights, and what tells if it makes spikes of its input itself."""
        self.layer = Layer(name, "synapse", "torch", own_type(module).__name__)
        self.always_on = False
        self._module = weakref.ref(module)
        self._kernels = kernels
        self._fires = fires
        parts = {k.owner(module) for k in kernels if k.path}
        inner = {m for m in nn.Module.modules(module) if isinstance(m, WEIGHTED)}
        inner -= {module, *parts}
        weights = (m._parameters.get("weight") for m in inner)
        # What no graph tells the origin of may be the weight of a layer within.
        self._inner = {tuple(w.shape) for w in weights if w is not None and not is_lazy(w)}
        self._handles: list[Any] = []
        self._session: Session | None = None
        self._open = threading.local()  # DataParallel runs replicas in threads of their own
        self._reach: dict[Any, FanOut] = {}
        self._is_unseen = _is_synapse(module) and fires is None  # as long as nothing was counted
        self._was_called = False
        self.begin(several=several)

    def begin(self, *, several: bool) -> None:
        """Count from here on, in a model that has neurons that fire several times, or has none."""
        self._operations = defaultdict[str, Operations](partial(Operations, several=several))

    @property
    def module(self) -> nn.Module | None:
        """The module, while it lives."""
        return self._module()

    def start(self, session: Session) -> None:
        """Put the hooks on, where operations are due to be counted."""
        self._session = session
        module = self._module()
        if not session.detailed or module is None or self._handles:
            return
        self._handles = [
            module.register_forward_pre_hook(Hook(self._before, self)),
            module.register_forward_hook(Hook(self._after, self), always_call=True),
        ]
        # Of a part whose weight the module uses, and which it calls as well, it is a layer's own.
        for part in {k.owner(module) for k in self._kernels if k.path}:
            self._handles += [
                part.register_forward_pre_hook(Hook(self._enter_part, self)),
                part.register_forward_hook(Hook(self._leave_part, self), always_call=True),
            ]

    def stop(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._after()

    def _before(self, module: nn.Module, *_: Any) -> None:
        session = self._session
        if session is None:
            return
        session.touch()
        if not (session.active and session.detailed) or in_recomputation():
            return
        try:
            self._after()
            # A part would be compiled anew under a mode, or be run by other code.
            if has_compiled_part(module) or would_be_fused(module):
                return
            self._open.module, self._open.in_part = module, False
            mode = SeeCalls(self._offer, is_product, _claims)
            mode.__enter__()
            self._open.mode = mode
            self._was_called = True
        except Exception as error:  # noqa: BLE001 - contract 1
            session.fault(self.layer.name, error)

    def _after(self, *_: Any) -> None:
        mode = getattr(self._open, "mode", None)
        if mode is not None:
            self._open.mode = self._open.module = None
            mode.leave()
            _claims.taken = False

    def _enter_part(self, *_: Any) -> None:
        self._open.in_part = True

    def _leave_part(self, *_: Any) -> None:
        self._open.in_part = False

    def _offer(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Count the products of a call; returns whether there were some of ours."""
        session, module = self._session, getattr(self._open, "module", None)
        if session is None or module is None or self._open.in_part:
            return False
        began = time.perf_counter()
        is_ours = False
        try:
            with unheard():
                for product in products(func, args, kwargs):
                    is_ours |= self._count(session.phase(), module, product)
        except Exception as error:  # noqa: BLE001 - contract 1
            session.fault(self.layer.name, error)
        session.spent(time.perf_counter() - began)
        return is_ours

    def _count(self, phase: str, module: nn.Module, product: Product) -> bool:
        sides = product.sides
        if any(type(x) not in _PLAIN or why_unreadable(x) or not x.numel() for x in sides):
            return False
        if any(x.is_complex() for x in sides):  # of these there are no accumulates to count
            return False
        found = self._weight_of(product, module)
        if found is None and sum(map(is_sparse, sides)) == 1:
            return self._count_sparse(phase, product)
        if found is not None:
            place, kernel = found
            x = sides[1 - place].detach()
            x = x.to_dense() if is_sparse(x) else x
            reach = self._reach_of(kernel, product, x, sides[place])
            if reach is not None:
                slid = () if product.convolve is None else tuple(sides[place].shape[2:])
                self._operations[kernel.layer].count(
                    phase,
                    x,
                    reach,
                    product.n_outputs,
                    stacked=product.is_batched,
                    n_called=x.numel() // math.prod(x.shape[-len(slid) - 1 :]),
                    axes=axes_of(x, slid),
                    has_graph=sides[1 - place].grad_fn is not None,
                    of_steps=self._fires is not None and self._fires(module),
                )
            return True
        if not product.is_batched or any(is_made_of_weights(x) for x in sides):
            return False
        name = self.layer.name
        if any(kernel.layer == name for kernel in self._kernels):
            name += "@products"
        self._operations[name].count_activations(
            phase, [x.detach() for x in sides], product.n_products, product.n_outputs
        )
        return True

    def _count_sparse(self, phase: str, product: Product) -> bool:
        """Count a product with a sparse tensor, which is the module's weight."""
        place = int(is_sparse(product.sides[1]))
        weight, x = product.sides[place], product.sides[1 - place].detach()
        if weight.dim() != 2 or x.dim() != 2:
            return False
        x = x if place else x.T
        self._operations[self.layer.name].count(
            phase,
            x,
            fan_out_of_entries(weight, 1 - place),
            product.n_outputs,
            n_called=len(x),
            has_graph=product.sides[1 - place].grad_fn is not None,
        )
        return True

    def _weight_of(self, product: Product, module: nn.Module) -> tuple[int, Kernel] | None:
        """Which side is a weight that the module keeps, and which one of these."""
        guess = None
        for place in reversed(product.weight_places):
            x = product.sides[place]
            for kernel in self._kernels if x.dim() > 1 else ():
                latent = kernel.latent(module)
                if latent is None:
                    continue
                origin = comes_from(x, latent)
                if origin:
                    return place, kernel
                if origin is None and guess is None and tuple(latent.shape) not in self._inner:
                    guess = (place, kernel) if fit(Operand(x, "any"), latent.shape) else None
        return guess

    def _reach_of(
        self, kernel: Kernel, product: Product, x: Tensor, weight: Tensor
    ) -> FanOut | None:
        if product.convolve is None:
            return FanOut(None, product.n_products / x.numel())
        n_axes = weight.dim() - 2
        if x.dim() <= n_axes:
            return None
        shape = tuple(x.shape[-n_axes - 1 :])
        key = (kernel.layer, shape, product.n_outputs / x.numel())
        if key not in self._reach:
            if len(self._reach) == _MOST_SHAPES:
                self._reach.clear()
            self._reach[key] = reach_of(product.convolve, weight.shape, shape, x.device)
        return self._reach[key]

    def flush(self, phase: str) -> Counts | None:
        """Counters of the table `energy`, of the module and of each weight that it keeps."""
        counted = {name: c for name, o in self._operations.items() if (c := o.flush(phase))}
        self._is_unseen &= not counted
        if self._is_unseen and self._was_called and self._session is not None:
            self._session.note(self.layer.name, _UNSEEN)
        self._was_called = False
        own = self.layer.name
        whole = counted.pop(own, None) or Counts({})
        whole.sites = {name.removeprefix(own): counts for name, counts in counted.items()}
        return whole if whole.tables or whole.sites else None
