"""Which of a model's modules are still those that were looked at, and which have come since.

A training may append layers, replace them, move them, or give one another class in its place, as
`torch.nn.utils.parametrize` does.
"""

import weakref
from dataclasses import dataclass
from typing import Any

from torch import nn

from .layers import named_modules, own_type


@dataclass(frozen=True)
class Changes:
    """What has become of a model's modules since the latest look.

    Attributes:
        kept: Those that are as they were, by their ids.
        known: The names that they have in the model now.
    """

    kept: frozenset[int]
    known: frozenset[str]


class Modules:
    """The modules of a model as they were at the latest look."""

    def __init__(self, model: nn.Module) -> None:
        # Each with its class and the ids of its parts.
        self._seen: list[tuple[weakref.ref[nn.Module], type, list[int]]] = []
        self._places: dict[str, tuple[weakref.ref[nn.Module], type]] = {}
        self._take(model, {})

    def have_changed(self) -> bool:
        """Whether one has come, gone, moved, or got another class.

        This is asked in each observed step, and goes through all of them: `nn.Module.modules` takes
        several times as long.
        """
        for ref, kind, parts in self._seen:
            module = ref()
            # A new module may have the id of one that was freed, but that one is seen here too.
            if module is None or type(module) is not kind:
                return True
            now = module._modules
            if (now or parts) and [*map(id, now.values())] != parts:
                return True
        return False

    def look(self, model: nn.Module) -> Changes:
        """Look at them anew.

        A module that has moved keeps the name that it was found under, unless another one has that
        name now.
        """
        now = named_modules(model)
        here = {id(module) for module in now.values()}
        names: dict[int, str] = {}
        for name, (ref, kind) in self._places.items():
            module = ref()
            if module is None or id(module) not in here or _class_of(module) is not kind:
                continue
            if now.get(name, module) is module:
                names[id(module)] = name
        self._take(model, names)
        known = frozenset(name for name, module in now.items() if id(module) in names)
        return Changes(frozenset(names), known)

    def at(self, layer: str) -> nn.Module | None:
        """The module of a layer, or else the one that it is a part of, as of the latest look."""
        while layer and layer not in self._places:
            layer = layer.rpartition(".")[0]
        return self._places[layer][0]() if layer in self._places else None

    def _take(self, model: nn.Module, names: dict[int, str]) -> None:
        self._seen = [
            (weakref.ref(m), type(m), [*map(id, m._modules.values())])
            for _, m in nn.Module.named_modules(model)
        ]
        self._places = {
            names.get(id(m), name): (weakref.ref(m), _class_of(m))
            for name, m in named_modules(model).items()
        }


def _class_of(module: nn.Module) -> Any:
    """The user's class of a module; of a lazy one the class that its first call gives it."""
    own = own_type(module)
    return getattr(own, "cls_to_become", None) or own
