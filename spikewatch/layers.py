"""What was found in a model, and the table that `attach()` prints of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn


Kind = Literal["spiking", "ternary", "quantized", "tap", "candidate", "synapse"]

# Wrappers around a module, by class name, and the attribute in which they keep it.
_WRAPPERS = {
    ("OptimizedModule", "_orig_mod"),
    ("DataParallel", "module"),
    ("DistributedDataParallel", "module"),
    ("FullyShardedDataParallel", "_fsdp_wrapped_module"),
    ("CheckpointWrapper", "_checkpoint_wrapped_module"),
    ("OffloadWrapper", "_checkpoint_wrapped_module"),
    ("AveragedModel", "module"),
}


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules by name, in definition order; without the names that wrappers add.

    `nn.Module.named_modules` is called on the class: rockpool overrides it to return a dict.
    """
    plain: dict[str, str] = {"": ""}
    modules: dict[str, nn.Module] = {}
    types: dict[str, str] = {}
    for full, module in nn.Module.named_modules(model):
        parent, _, own = full.rpartition(".")
        if full and (types.get(parent), own) in _WRAPPERS:
            plain[full] = plain[parent]
        elif full:
            plain[full] = f"{plain.get(parent, parent)}.{own}".lstrip(".")
        types[full] = type(module).__name__
        modules[plain[full]] = module  # what is wrapped takes its wrapper's place
    return modules


def called_parts(model: nn.Module) -> list[nn.Module]:
    """What a loop calls that does not call the model itself: its parts, and what lists hold."""
    parts: list[nn.Module] = []
    for child in nn.Module.children(model):
        forward = getattr(type(child), "forward", None)
        if forward is nn.Module.forward:
            parts += called_parts(child)
        elif forward is not None:  # a ScriptModule's class has none
            parts.append(child)
    return parts


def own_type(module: nn.Module) -> Any:
    """The class that the user gave a module; FSDP puts a class of its own before it."""
    return next(c for c in type(module).__mro__ if not c.__module__.startswith("torch.distributed"))


@dataclass(frozen=True)
class Layer:
    """One watched layer.

    Attributes:
        name: The module's qualified name, without the prefixes of wrappers (`module.`,
            `_orig_mod.`); for a tap, the name given by the user.
        kind: `spiking`, `ternary` (weights), `quantized` (weights that are binary, of n bits, or on
            their way to ternary ones: the note says which), `tap` (a functional neuron), or
            `candidate` (its code can make spikes, or its weights become quantized; a forward pass
            decides); `synapse` (a weight layer whose operations are counted, and whose weights are
            glanced at; it is in the table `energy`, and not among the layers).
        library: Who makes such layers (`snntorch`, `spikingjelly`, `user`, …).
        type: The module's class name.
        note: What the user should know of how it is watched.
    """

    name: str
    kind: Kind
    library: str
    type: str
    note: str = ""


def report(layers: Sequence[Layer], *, run: str, where: str, every: object) -> str:
    """The short table that says what will be watched.

    Args:
        layers: In the model's order.
        run: Name of the run.
        where: The runs folder.
        every: The sampling that the user asked for.
    """
    rows = [("layer", "kind", "type", "note")]
    rows += [(x.name or "(model)", x.kind, f"{x.library}.{x.type}", x.note) for x in layers]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        "  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    n = len(layers)
    head = f"spikewatch watches {n} layer{'s'[: n != 1]}, run {run!r} in {where} (every={every!r})"
    return "\n".join([head, *lines])
