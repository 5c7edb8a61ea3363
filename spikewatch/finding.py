"""Asking the collectors what they find in a model, and saying so when they find nothing.

A model that has changed is asked about again: only what is new in it is looked at.
"""

import difflib
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from .errors import AttachError
from .layers import named_modules
from .observing import Hints, Observer, load_collectors
from .unregistered import unregistered


class Finder:
    """Asks the collectors what they find in one model, and knows who found what."""

    def __init__(self, *, named: Mapping[str, str], hints: Hints | None = None) -> None:
        """Take the layers that the user named, with their axes, and what else the user told."""
        self._named = named
        self._hints = hints
        self._collectors = load_collectors()
        self._found: dict[str, list[Observer]] = {name: [] for name in self._collectors}

    def find(self, model: nn.Module) -> list[Observer]:
        """An observer for each layer that a collector finds, in the model's order.

        Raises:
            AttachError: There is none; the message lists what was seen and how to name a layer.
        """
        observers = self._ask(model, taken=frozenset())
        if all(o.layer.kind == "synapse" for o in observers):
            raise AttachError(_nothing_found(model))
        return in_order(observers, model)

    def find_again(
        self, model: nn.Module, *, taken: frozenset[str], leave: Collection[Observer]
    ) -> list[Observer]:
        """Observers of what has come to a model.

        Args:
            model: As it is now.
            taken: Names of the modules that are as they were.
            leave: Those that were found before, and whose module is not one of these.
        """
        gone = {id(o) for o in leave}
        for found in self._found.values():
            found[:] = [o for o in found if id(o) not in gone]
        return self._ask(model, taken=taken)

    def has_found(self, observer: Observer) -> bool:
        """Whether a collector found an observer, and did not lose it again."""
        return any(observer is o for found in self._found.values() for o in found)

    def _ask(self, model: nn.Module, *, taken: frozenset[str]) -> list[Observer]:
        observers: list[Observer] = []
        for name, find in self._collectors.items():
            known = self._found[name]
            offered = {"hints": self._hints, "known": tuple(known)}
            asked = inspect.signature(find).parameters
            wishes: Any = {k: v for k, v in offered.items() if k in asked}
            new = find(model, named=self._named, taken=taken, **wishes)
            known += new
            observers += new
        return observers


def in_order(observers: Iterable[Observer], model: nn.Module) -> list[Observer]:
    """Observers in the order in which their layers are defined in a model."""
    order = {name: i for i, name in enumerate(named_modules(model))}

    def place(observer: Observer) -> int:
        name = observer.layer.name
        # One of several weights of a module has a name within the module's.
        return order.get(name, order.get(name.rpartition(".")[0], len(order)))

    return sorted(observers, key=place)


def parse_layers(
    model: nn.Module, layers: Sequence[str] | Mapping[str, str] | None
) -> Mapping[str, str]:
    """Check the names that the user gave by hand.

    Returns:
        Axes by name; "" where they are to be inferred.

    Raises:
        AttachError: A name is not in the model, or axes cannot be read.
    """
    if isinstance(layers, str):
        layers = [layers]
    given = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers or (), "")
    for name, axes in given.items():
        _check_name(model, name, "layers")
        if axes and not _readable(axes):
            raise AttachError(
                f"`layers` gives {name!r} the axes {axes!r}. Write T for time, B for the batch and "
                "* for the neuron's own axes, such as 'B*' (called at each step) or 'TB*'."
            )
    return given


def parse_hints(
    model: nn.Module,
    *,
    quantized: Mapping[str, Callable[[nn.Module], Tensor]] | None,
    pairs: Iterable[tuple[str, str]],
    optimizers: Iterable[Optimizer],
) -> Hints:
    """Check what the user says of quantized weights.

    Raises:
        AttachError: A name is not in the model, or something is not what it should be.
    """
    hints = Hints(dict(quantized or {}), [tuple(pair) for pair in pairs], list(optimizers))
    for name, function in hints.quantized.items():
        _check_name(model, name, "quantized")
        if not callable(function):
            raise AttachError(
                f"`quantized` gives {name!r} {function!r}. Give a function that takes the layer "
                "and returns its quantized weight."
            )
    for pair in hints.pairs:
        if len(pair) != 2:
            raise AttachError(f"`pairs` has {pair!r}. A pair is the names of two layers.")
        for name in pair:
            _check_name(model, name, "pairs")
    for optimizer in hints.optimizers:
        if not isinstance(optimizer, Optimizer):
            raise AttachError(
                f"`optimizers` has a {type(optimizer).__name__}. Give the torch.optim optimizers "
                "that hold the latent weights."
            )
    return hints


def _check_name(model: nn.Module, name: str, argument: str) -> None:
    known = [n for n in named_modules(model) if n]
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=3)
        hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else _some(known)
        raise AttachError(f"`{argument}` names {name!r}, which is not in the model. {hint}")


def _readable(axes: str) -> bool:
    letters = sorted(axes.replace("*", ""))
    return axes.count("*") == 1 and letters in ([], ["B"], ["T"], ["B", "T"])


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"It has: {shown or 'no submodules'}."


def _nothing_found(model: nn.Module) -> str:
    kinds = Counter(type(m).__name__ for _, m in nn.Module.named_modules(model) if m is not model)
    seen = ", ".join(f"{kind} × {n}" for kind, n in kinds.most_common(12)) or "no submodules"
    return (
        f"`attach()` found no spiking and no ternary layer in this {type(model).__name__}. "
        f"Seen: {seen}. {_not_registered(model)}"
        "If a module makes spikes, name it: attach(model, layers=['name']). "
        "If a function does, pass its output through spikewatch.tap('name', spikes) where it is "
        "called, in forward or in another method. "
        "If the weights of plain layers are quantized by writing into them before each forward "
        "pass, name these: attach(model, quantized={'name': lambda layer: layer.weight})."
    )


def _not_registered(model: nn.Module) -> str:
    """Tells of modules in a plain container, which nothing in torch sees, an optimizer neither."""
    hidden = next(unregistered(model), None)
    if hidden is None:
        return ""
    kind = "ModuleDict" if "Dict" in hidden.container.title() else "ModuleList"
    return (
        f"{hidden.attribute!r} is a plain {hidden.container} with modules in it "
        f"({type(hidden.module).__name__}), so that torch does not know them as parts of the "
        f"model: make it an nn.{kind}. "
    )
