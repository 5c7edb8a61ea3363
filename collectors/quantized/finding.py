"""Which layers have, or may come to have, quantized weights."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from spikewatch.layers import named_modules, own_type
from spikewatch.observing import Hints

from ..attributes import parametrizations, read
from ..reachable import names_in_code
from ..recognise import find_spiking
from .adapters import packed_shape
from .kernels import Kernel, is_wrapper
from .latent_elsewhere import Elsewhere
from .levels import judge
from .observer import WeightObserver
from .pairs import make_pairs, part_pairs
from .place import Containers, is_matrix, places
from .seeing import Sight


_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding)
_PLAIN = ("torch.nn.modules.", "spikingjelly.", "snntorch.")
# Of weight_norm, spectral_norm and pruning: the matrices behind a weight, never multiplied with.
_MADE_INTO_WEIGHT = ("weight_g", "weight_v", "weight_orig", "weight_mask")
_TORCH_QUANTIZERS = ("weight_fake_quant",)


def find(
    model: nn.Module,
    *,
    named: Mapping[str, str],
    taken: frozenset[str],
    hints: Hints | None = None,
    known: Sequence[WeightObserver] = (),
) -> Sequence[WeightObserver]:
    """An observer for each weight that is, or may become, quantized.

    Those that are known get to know their place in the model as it is.
    """
    hints = hints or Hints()
    modules = {n: m for n, m in named_modules(model).items() if n not in taken}
    elsewhere = Elsewhere(model, hints.optimizers) if hints.optimizers else None
    wanted = {*hints.quantized, *(name for pair in hints.pairs for name in pair)}
    kernels = _without_doubles(modules, dict(kernels_of(modules, wanted, elsewhere)))
    if any(k.guess and not k.plain for found in kernels.values() for k in found):
        spiking = {f.name for f in find_spiking(model, named=named) if f.kind == "spiking"}
        kernels = {n: [k for k in found if not (k.guess and _within(n, spiking))]
                   for n, found in kernels.items()}  # fmt: skip
    where = places(model)
    before = {o.layer.name: o for o in known}
    for name, observer in before.items():
        observer.place = where.get(name, where.get(name.rpartition(".")[0]))
    observers: dict[str, WeightObserver] = {}
    for name, found in kernels.items():
        sight = Sight(modules[name]) if found else None
        for kernel in found:
            if kernel.layer in before or (kernel.plain and kernel.layer in observers):
                continue  # a module around it multiplies with its weight
            assert sight is not None  # noqa: S101 - there are kernels
            observers[kernel.layer] = WeightObserver(
                kernel,
                sight,
                kernel.owner(modules[name]),
                place=where.get(kernel.layer, where.get(name)),
                told=hints.quantized.get(kernel.layer),
                elsewhere=elsewhere,
            )
    part_pairs(known)
    make_pairs(before | observers, hints.pairs)
    return list(observers.values())


def kernels_of(
    modules: Mapping[str, nn.Module],
    wanted: Collection[str] = (),
    elsewhere: Elsewhere | None = None,
) -> Iterator[tuple[str, list[Kernel]]]:
    """The weights to look for, by the module in whose forward pass they are multiplied.

    Args:
        modules: By name.
        wanted: Names of modules that are looked at in any case.
        elsewhere: Latent weights that only the optimizers hold.
    """
    for name, module in modules.items():
        if isinstance(module, parametrize.ParametrizationList):
            continue
        own = list(_own_kernels(name, module, is_wanted=name in wanted, elsewhere=elsewhere))
        yield name, [*own, *_contained(name, module)] or list(_applied(name, module))


def _without_doubles(
    modules: Mapping[str, nn.Module], kernels: dict[str, list[Kernel]]
) -> dict[str, list[Kernel]]:
    """Leave out guesses at a weight that another module keeps: a quantizer may hold it as well."""
    seen: set[int] = set()
    for name in sorted(kernels, key=lambda name: name.count(".")):  # outermost first
        found = kernels[name]
        kept = {k: id(w) for k in found if (w := k.kept(modules[name])) is not None}
        kernels[name] = [k for k in found if not (k.guess and kept.get(k) in seen)]
        seen |= set(kept.values())
    return kernels


def _own_kernels(
    name: str, module: nn.Module, *, is_wanted: bool, elsewhere: Elsewhere | None
) -> Iterator[Kernel]:
    if isinstance(module, torch.jit.ScriptModule):
        return
    if found := parametrizations(module):
        for tensor, parts in found.items():
            original = getattr(parts, "original", None)
            if isinstance(original, Tensor) and original.dim() >= 2:
                yield Kernel(_layer(name, tensor, "weight"), attribute=tensor)
        return
    origin = own_type(module).__module__
    quantizes = any(read(module, name) is not None for name in _TORCH_QUANTIZERS)
    plain = origin.startswith(_PLAIN) or (origin.startswith("torch.") and not quantizes)
    if plain:
        weight = module._parameters.get("weight")
        fits = isinstance(module, _WEIGHTED) and weight is not None
        if is_wanted or (fits and (_is_ternary(weight) or _is_swapped(weight, elsewhere))):
            yield Kernel(name)
        elif fits:
            yield Kernel(name, guess=True, plain=True)
        return
    if (shape := packed_shape(module)) is not None:
        yield Kernel(name, shape=shape)
        return
    usual = isinstance(module, _WEIGHTED)
    matrices = [n for n, t in _tensors(module) if is_matrix(t)]
    if usual and "weight" not in matrices:
        # Lazy, sharded, with one output, or made anew by a hook of torch.nn.utils.
        matrices = ["weight", *(n for n in matrices if n not in _MADE_INTO_WEIGHT)]
    main = matrices[0] if len(matrices) == 1 else "weight"
    for attribute in matrices:
        guess = not (usual and attribute == "weight") and not is_wanted
        yield Kernel(_layer(name, attribute, main), attribute=attribute, guess=guess)
    if is_wanted and main not in matrices:
        yield Kernel(name)  # the user's function knows what its weight is


def _contained(name: str, module: nn.Module) -> Iterator[Kernel]:
    """Weights in lists and dicts of parameters that a module holds."""
    if own_type(module).__module__.startswith("torch."):
        return
    todo = list(module.named_children())
    while todo:
        path, part = todo.pop(0)
        if isinstance(part, Containers):
            for key, parameter in _tensors(part):
                if is_matrix(parameter):
                    layer = f"{name}.{path}.{key}".lstrip(".")
                    yield Kernel(layer, path=path, attribute=key, guess=True)
        elif isinstance(part, nn.ModuleList | nn.ModuleDict):
            todo += [(f"{path}.{k}", m) for k, m in part.named_children()]


def _applied(name: str, module: nn.Module) -> Iterator[Kernel]:
    """Weights of plain layers that a module multiplies with by itself, in code of its own."""
    if own_type(module).__module__.startswith("torch."):
        return
    plain = {
        n: m
        for n, m in module.named_children()
        if isinstance(m, _WEIGHTED) and own_type(m).__module__.startswith(_PLAIN)
    }
    if not plain:
        return
    used = names_in_code(module)
    if "weight" in used:
        for part in plain:
            if part in used:
                yield Kernel(f"{name}.{part}".lstrip("."), path=part, guess=True)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in module._parameters.items():
        if parameter is not None and not is_lazy(parameter):
            yield name, parameter
    for name, buffer in module._buffers.items():
        if buffer is not None and "weight" in name and not is_lazy(buffer):
            yield name, buffer


def _is_ternary(weight: Tensor) -> bool:
    """Whether a plain parameter is ternary itself: swapped while training, or for inference."""
    # Sharded weights are looked at where they are: asking for all of them is a collective.
    local: Any = getattr(weight, "_local_tensor", weight)
    if is_wrapper(local):
        return True
    return (
        not local.is_meta
        and not is_lazy(local)
        and local.numel() > 0
        and judge(local).form == "ternary"
    )


def _is_swapped(weight: Tensor, elsewhere: Elsewhere | None) -> bool:
    return elsewhere is not None and not is_lazy(weight) and elsewhere.has(tuple(weight.shape))


def _layer(name: str, attribute: str, main: str) -> str:
    return name if attribute == main else f"{name}.{attribute}".lstrip(".")


def _within(name: str, outer: set[str]) -> bool:
    return any(o in ("", name) or name.startswith(f"{o}.") for o in outer)
