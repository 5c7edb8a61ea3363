"""Asking the collectors what they find in a model, and saying so when they find nothing."""

import difflib
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from .errors import AttachError
from .layers import named_modules
from .observing import Hints, Observer, load_collectors
from .unregistered import unregistered


def find_observers(
    model: nn.Module, *, named: Mapping[str, str], hints: Hints | None = None
) -> list[Observer]:
    """An observer for each layer that a collector finds, in the model's order.

    Raises:
        AttachError: There is none; the message lists what was seen and how to name a layer.
    """
    observers: list[Observer] = []
    for find in load_collectors().values():
        wishes = {"hints": hints} if "hints" in inspect.signature(find).parameters else {}
        observers += find(model, named=named, taken=frozenset(), **wishes)
    if all(o.layer.kind == "synapse" for o in observers):
        raise AttachError(_nothing_found(model))
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
