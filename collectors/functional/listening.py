"""Listening to custom autograd functions, wherever they are called.

However early `act_fun = ActFun.apply` was bound, the class's `forward` (and `setup_context`, where
the two are apart) is looked up at each call. While a step is observed a listener sits in its place,
calls it, and hears what went in and what came out; then it is given back.
"""

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from spikewatch.unheard import unheard


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A call of a custom autograd function, heard as its forward ends.

    Attributes:
        function: The function's class.
        context: Its `ctx`, which is the node of the autograd graph.
        inputs: What it was given.
        output: What it returned; without a graph yet.
    """

    function: Any
    context: Any
    inputs: tuple[Any, ...]
    output: Any

    @property
    def has_graph(self) -> bool:
        """Whether a backward pass may come by."""
        return any(self.context.needs_input_grad)

    def node(self) -> "MadeNow":
        """What can be read of the node before its forward has ended."""
        return MadeNow(self)


class MadeNow:
    """A node of the autograd graph as `surrogate.py` reads one, from within its own forward."""

    def __init__(self, call: FunctionCall) -> None:
        self._forward_cls = call.function
        self._context = call.context
        self._input_metadata: tuple[Tensor, ...] = (call.output,)
        self.saved_tensors = tuple(call.context.to_save or ())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class Listener(Protocol):
    """Who hears the calls."""

    def hear(self, call: FunctionCall) -> None:
        """Take note of a call; never raises."""


def listen(functions: frozenset[Any], listener: Listener) -> None:
    """Have a listener hear all calls of these functions."""
    with _lock:
        for function in functions:
            seat = _seats.get(function)
            if seat is None:
                seat = _seats[function] = _Seat()
            if not seat.listeners:
                seat.take(function)
            if listener not in seat.listeners:
                seat.listeners += (listener,)


def unlisten(functions: frozenset[Any], listener: Listener) -> None:
    """Have it hear them no more; the last one to leave puts everything back as it was."""
    with _lock:
        for function in functions:
            seat = _seats.get(function)
            if seat is not None and listener in seat.listeners:
                seat.listeners = tuple(x for x in seat.listeners if x is not listener)
                if not seat.listeners:
                    seat.give_back(function)


_ABSENT = object()


class _Seat:
    """The place of one function's forward, and who listens there."""

    def __init__(self) -> None:
        self.listeners: tuple[Listener, ...] = ()
        self._name = ""
        self._own: Any = _ABSENT

    def take(self, function: Any) -> None:
        apart = torch.autograd.function._is_setup_context_defined(function.setup_context)
        self._name = "setup_context" if apart else "forward"
        self._own = vars(function).get(self._name, _ABSENT)
        original = getattr(function, self._name)
        listened = _setup_context if apart else _forward
        setattr(function, self._name, staticmethod(listened(function, original, self)))

    def give_back(self, function: Any) -> None:
        if self._own is _ABSENT:
            delattr(function, self._name)
        else:
            setattr(function, self._name, self._own)
        self._own = _ABSENT

    def tell(self, function: Any, context: Any, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and not _is_traced():
            call = FunctionCall(function, context, inputs, output)
            with unheard():  # as in a `Hook`
                for listener in self.listeners:
                    listener.hear(call)


def _is_traced() -> bool:
    # The tracer rests while a function's own forward runs, and says that it does not trace.
    return (
        getattr(torch.jit._trace, "_trace_module_map", None) is not None or torch._C._is_tracing()
    )


def _forward(function: Any, original: Callable[..., Any], seat: _Seat) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or getattr(_within, "one", False):
            return original(*args, **kwargs)
        _within.one = True  # a function that calls another one makes its spikes once
        try:
            output = original(*args, **kwargs)
        finally:
            _within.one = False
        seat.tell(function, args[0], args[1:], output)
        return output

    forward.__wrapped__ = original  # ty: ignore[missing-attribute]
    return forward


def _setup_context(function: Any, original: Callable[..., Any], seat: _Seat) -> Callable[..., Any]:
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        result = original(ctx, inputs, output)
        if not torch.compiler.is_compiling() and not getattr(_within, "one", False):
            seat.tell(function, ctx, inputs, output)
        return result

    return setup_context


_seats: "weakref.WeakKeyDictionary[Any, _Seat]" = weakref.WeakKeyDictionary()
_lock = threading.Lock()
_within = threading.local()
