"""Telling of spiking layers in plain lists and dictionaries: nobody sees them."""

from torch import nn

from spikewatch.unregistered import unregistered

from .recognise import find_spiking


_MOST_NAMES = 6
_TELL = (
    "{names}: kept in a plain list, tuple or dictionary, and so no modules of the model. They are "
    "not watched, and model.parameters(), .to() and .train() do not reach them. Keep them in an "
    "nn.ModuleList or nn.ModuleDict, unless that is meant"
)


def why_unwatched(model: nn.Module) -> str:
    """What to tell of the spiking layers that the model has in plain containers; "" without any."""
    names = [
        f"{kept.name}.{found.name}".rstrip(".")
        for kept in unregistered(model)
        for found in find_spiking(kept.module, named={})
        if found.kind == "spiking"
    ]
    if not names:
        return ""
    told = ", ".join(map(repr, names[:_MOST_NAMES]))
    if len(names) > _MOST_NAMES:
        told += f" and {len(names) - _MOST_NAMES} more"
    return _TELL.format(names=told)
