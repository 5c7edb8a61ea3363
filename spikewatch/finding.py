"""Asking the collectors what they find in a model, and saying so when they find nothing."""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import nn

from .errors import AttachError
from .layers import named_modules
from .observing import Observer, load_collectors


def find_observers(model: nn.Module, *, named: Mapping[str, str]) -> list[Observer]:
    """An observer for each layer that a collector finds, in the model's order.

    Raises:
        AttachError: There is none; the message lists what was seen and how to name a layer.
    """
    observers: list[Observer] = []
    for find in load_collectors().values():
        observers += find(model, named=named, taken=frozenset())
    if all(o.layer.kind == "synapse" for o in observers):
        raise AttachError(_nothing_found(model))
    order = {name: i for i, name in enumerate(named_modules(model))}
    return sorted(observers, key=lambda o: order.get(o.layer.name, len(order)))


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
    known = [name for name in named_modules(model) if name]
    for name, axes in given.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else _some(known)
            raise AttachError(f"`layers` names {name!r}, which is not in the model. {hint}")
        if axes and not _readable(axes):
            raise AttachError(
                f"`layers` gives {name!r} the axes {axes!r}. Write T for time, B for the batch and "
                "* for the neuron's own axes, such as 'B*' (called at each step) or 'TB*'."
            )
    return given


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
        f"Seen: {seen}. "
        "If a module makes spikes, name it: attach(model, layers=['name']). "
        "If a function does, pass its output through spikewatch.tap('name', spikes) in forward."
    )
