"""Which modules of a model make spikes.

In this order: a library's class, known by name; duck typing (a threshold and a state); code that
can reach a custom `autograd.Function`, a threshold alone, or a state and a detach trick: a
*candidate* about which the first forward pass decides.
Output values alone are never evidence: pooling, flatten and dropout pass 0 and 1 on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from spikewatch.layers import Kind, named_modules, own_type

from .candidates import Evidence
from .libraries import user
from .libraries.own_numbers import THRESHOLDS
from .library import Library, load_libraries, qualified_names
from .quantized.adapters import QUANTIZERS
from .reachable import NO_PACKAGES, package, reaches_function
from .tricks_in_code import makes_spikes_by_trick


_WIDTHS = ("out_features", "out_channels", "num_features", "embedding_dim")
BY_HAND = "named by hand"
_DUCK = "has a threshold and a state"
_BY_CODE = "custom autograd function; the first forward pass decides"
_BY_THRESHOLD = "has a threshold; the first forward pass decides"
_BY_TRICK = "has a state and a detach trick; the first forward pass decides"


@dataclass(frozen=True)
class Found:
    """A module that makes spikes, or may; `by` what, if it is a candidate.

    It may be nested in another neuron, share its surrogate with others, or be the gates of a cell.
    """

    name: str
    module: nn.Module
    library: Library
    kind: Kind
    note: str = ""
    axes: str = ""
    by: Evidence = "class"
    nested: bool = False
    is_gate: bool = False
    surrogate: nn.Module | None = None

    @property
    def sure(self) -> bool:
        """Whether the class says that it makes spikes, and no look at them is needed.

        A library says so of its own classes; a class that a user derived from one may return what
        it likes, such as the potential of a readout.
        """
        cls = own_type(self.module)
        own = package(cls) == self.library.name.replace("-", "_")
        return self.library.name != "user" and (own or not _is_derived(cls))


def find_spiking(model: nn.Module, *, named: Mapping[str, str]) -> list[Found]:
    """The modules of `model` that make spikes, outermost first.

    A part of a neuron is none: its surrogate, its inner recurrent layer. A library's neuron that a
    user put into a class derived from a library's is one all the same.
    """
    libraries, modules = load_libraries(), named_modules(model)
    hits: dict[str, Found] = {}
    uncalled = _uncalled(modules, libraries)
    for name, module in modules.items():
        if name in named:
            by_hand = Found(name, module, user.LIBRARY, "spiking", BY_HAND, named[name])
            hits[name] = by_hand
        elif name in uncalled or any(_within(name, part) for part in uncalled):
            continue
        elif (hit := _recognise(name, module, libraries)) is not None:
            parent = modules.get(name.rpartition(".")[0]) if name else None
            if hit.kind == "spiking" or parent is None:
                hits[name] = hit
            elif not _is_part(module, parent, libraries):
                hits[name] = replace(hit, is_gate=_has_gates(parent, libraries))
    for name, hit in list(hits.items()):
        if _is_network(hit, hits):
            del hits[name]
            if (candidate := _candidate(name, hit.module)) is not None:
                hits[name] = candidate
    hits = _without_blocks(_with_owners(hits, modules, libraries))
    neurons = [hit for hit in hits.values() if hit.kind == "spiking"]
    found = []
    for hit in (hits[name] for name in modules if name in hits):
        around = [n for n in neurons if _within(hit.name, n.name)]
        if not around:
            found.append(hit)
        elif all(_is_put_into(hit, n, modules) for n in around):
            found.append(replace(hit, nested=True))
    return found


def fire_several_times(modules: Iterable[nn.Module]) -> bool:
    """Whether there are neurons among them that may fire several times in one time step."""
    libraries = [x for x in load_libraries() if x.several_a_step]
    return any(x.is_spiking(m, qualified_names(type(m))) for m in modules for x in libraries)


def output_widths(model: nn.Module) -> set[int]:
    """How many outputs the layers of a model with weights have, as PyTorch's classes call it."""
    found = [vars(m).get(a) for m in nn.Module.modules(model) for a in _WIDTHS]
    return {n for n in found if isinstance(n, int)}


def _uncalled(modules: Mapping[str, nn.Module], libraries: list[Library]) -> set[str]:
    """Parts of libraries' modules that these never call."""
    return {
        f"{name}.{part}".lstrip(".")
        for name, module in modules.items()
        for library in libraries
        for part in library.uncalled(module, qualified_names(type(module)))
    }


def _without_blocks(hits: Mapping[str, Found]) -> dict[str, Found]:
    """Without what has a threshold for the neurons in it, and for no use of its own."""
    return {
        name: hit
        for name, hit in hits.items()
        if hit.by != "threshold" or not any(_within(n, name) for n in hits)
    }


def _with_owners(
    hits: Mapping[str, Found], modules: Mapping[str, nn.Module], libraries: list[Library]
) -> dict[str, Found]:
    """With the neurons that share a surrogate in its place: it would be one layer for them all."""
    found = dict(hits)
    for name, hit in hits.items():
        if hit.by != "code" or not _may_be_neuron(hit.module):
            continue
        owners = {n: m for n, m in modules.items() if hit.module in m._modules.values()}
        if len(owners) < 2 or not all(map(_may_be_neuron, owners.values())):
            continue
        del found[name]
        for owner, module in owners.items():
            names = qualified_names(type(module))
            if all(x.is_spiking(module, names) is None for x in libraries):
                new = Found(owner, module, user.LIBRARY, "candidate", _BY_CODE, by="code")
                if owner not in found or found[owner].by == "threshold":
                    found[owner] = replace(new, surrogate=hit.module)
    return found


def _may_be_neuron(module: nn.Module) -> bool:
    """Whether a module is a user's that has no weights."""
    return not own_type(module).__module__.startswith("torch.") and not has_weights(module)


def has_weights(module: nn.Module) -> bool:
    """Whether a module has parameters that are matrices, in parts of it as well."""
    parts = (p for m in nn.Module.modules(module) for p in m._parameters.values() if p is not None)
    return any(is_lazy(p) or sum(n > 1 for n in p.shape) > 1 for p in parts)


def _is_network(hit: Found, hits: Mapping[str, Found]) -> bool:
    """Whether what has a threshold and a state is a network of neurons that shares them."""
    if hit.note != _DUCK:
        return False
    parts = [m for m in nn.Module.modules(hit.module) if m is not hit.module]
    if hit.name == "" and any(
        p.dim() > 1 for m in parts for p in m._parameters.values() if p is not None
    ):
        return True
    return any(h.kind == "spiking" and _within(n, hit.name) for n, h in hits.items())


def _is_part(module: nn.Module, parent: nn.Module, libraries: list[Library]) -> bool:
    """Whether a library's module is a part of one that the library knows to make no spikes.

    Such is the surrogate of a readout which does not fire.
    """
    names = qualified_names(type(parent))
    known = next((k for x in libraries if (k := x.is_spiking(parent, names)) is not None), None)
    return known is False and package(own_type(module)) in {package(c) for c in _bases(parent)}


def _has_gates(parent: nn.Module, libraries: list[Library]) -> bool:
    return any(x.gated_cells.intersection(qualified_names(type(parent))) for x in libraries)


def _is_put_into(hit: Found, outer: Found, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a library's neuron stands in a user's own one, and it was the user who put it there.

    It has a name then that the outer one's library does not know, or is in a module of other make.
    """
    if "user" in (hit.library.name, outer.library.name) or not hit.sure or outer.sure:
        return False
    theirs = outer.library.name.replace("-", "_")
    path = hit.name.removeprefix(outer.name).lstrip(".").split(".")
    between = (
        modules.get(".".join([outer.name, *path[:n]]).lstrip(".")) for n in range(1, len(path))
    )
    if any(m is None or package(own_type(m)) not in {theirs, *NO_PACKAGES} for m in between):
        return True
    bases = [c for c in _bases(outer.module) if package(c) == theirs]
    known = {n for c in bases for f in vars(c).values() for n in _mentioned(f)}
    return path[0] not in known


def _mentioned(thing: Any) -> set[str]:
    """Names and words in the code of a function."""
    if not isinstance(thing, FunctionType):
        return set()
    words = (c for c in thing.__code__.co_consts if isinstance(c, str))
    return {*thing.__code__.co_names, *words}


def _is_derived(cls: type) -> bool:
    """Whether a class is derived from one of another package, torch's aside."""
    others = {package(c) for c in cls.__mro__[1:]} - NO_PACKAGES
    return bool(others) and package(cls) not in others


def _bases(module: nn.Module) -> list[type]:
    return [c for c in type(module).__mro__ if package(c) not in NO_PACKAGES]


def _within(name: str, outer: str) -> bool:
    return name != outer and (outer == "" or name.startswith(f"{outer}."))


def _recognise(name: str, module: nn.Module, libraries: list[Library]) -> Found | None:
    names = qualified_names(type(module))
    for library in libraries:
        known = library.is_spiking(module, names)
        if known is not None:
            return Found(name, module, library, "spiking", library.note) if known else None
    if own_type(module).__module__.startswith("torch."):
        return None
    keeps_state = _has_any(module, user.STATES) or user.takes_state(module)
    if keeps_state and _has_any(module, THRESHOLDS):
        return Found(name, module, user.LIBRARY, "spiking", _DUCK)
    return _candidate(name, module)


def _candidate(name: str, module: nn.Module) -> Found | None:
    if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
        return None
    if name.rpartition(".")[2] in QUANTIZERS:
        return None  # of a weight: its custom function rounds that
    if reaches_function(module):
        return Found(name, module, user.LIBRARY, "candidate", _BY_CODE, by="code")
    # Spikes may be made by a straight-through trick, without a function: by the module itself, or
    # by a part of it without weights, such as a surrogate.
    if _has_any(module, THRESHOLDS) and (not module._modules or _may_be_neuron(module)):
        return Found(name, module, user.LIBRARY, "candidate", _BY_THRESHOLD, by="threshold")
    if makes_spikes_by_trick(module):
        return Found(name, module, user.LIBRARY, "candidate", _BY_TRICK, by="trick")
    return None


def _has_any(module: nn.Module, attributes: tuple[str, ...]) -> bool:
    # Not hasattr: a property of the user may compute something, or raise.
    places = (vars(module), module._parameters, module._buffers)
    return any(a in place for a in attributes for place in places)
