"""Whether a module goes on with the state that it keeps, under whatever name, and without a graph.

A neuron that learns online cuts the graph of its state in each of its time steps (DECOLLE). Where a
loop calls it, no graph tells then that a call goes on with the sample of the one before. But the
module holds what that call left: the same tensors, until they are replaced or thrown away.
"""

import dis
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from torch import Tensor, nn

from spikewatch.layers import own_type
from spikewatch.observing import Session

from ..reachable import own_code
from .left_behind import UNKNOWN, Seen, glance, may_be_seen, shares


_LOADS = ("LOAD_ATTR", "LOAD_METHOD")
_DEEPEST = 2  # a tuple of states, one for each layer
_MOST_STATES = 16  # a longer list is a record

Path = tuple[Any, ...]


class _Item(NamedTuple):
    """Where in a list or a dictionary."""

    key: Any


class _Left(Seen):
    """A state as it was left, and some of its numbers."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(tensor)
        self.values: Tensor | None = None


class KeptState:
    """Follows the tensors that a module keeps from call to call, in steps with the dear readings.

    It has something to say only of those that a call replaces or changes, that have the shape of
    the spikes, and whose graph is cut where the spikes have one.
    """

    def __init__(self) -> None:
        self._found: dict[Path, _Left] = {}  # what a call began with
        self._left: dict[Path, _Left] = {}  # of states
        self._left_at = 0, 0  # step, and forward pass
        self._cuts: bool | None = None  # whether it cuts the graph; None: none was seen yet

    def enter(self, session: Session, name: str, module: nn.Module) -> bool | None:
        """Whether a sample begins with the call that comes; None where this does not tell."""
        held = {path: t for path, t in _held(module) if may_be_seen(t)}
        self._found = {path: _Left(t) for path, t in held.items()}
        if not self._left or self._cuts is False:
            return None
        if any(path not in held for path in self._left):
            return True
        new = [(left, t) for path, left in self._left.items() if not left.is_still(t := held[path])]
        if not new:
            return False
        if any(t.grad_fn is not None for _, t in new):
            return None
        if all(t.is_cpu for _, t in new):
            if all(bool((t == t.flatten()[0]).all()) for _, t in new):
                return True  # at rest
            if any(_is_copy(t, left.values) for left, t in new):
                return False
            step, forward = self._left_at
            if session.step - step <= 1 and session.n_forwards - forward <= 1:
                return True
        session.note(name, UNKNOWN)
        return False  # at an unknown time step

    def leave(
        self, session: Session, module: nn.Module, shape: tuple[int, ...], *, has_graph: bool
    ) -> None:
        """A call is over that has made spikes of this shape."""
        found, self._found = self._found, {}
        changed = {
            path: t
            for path, t in _held(module)
            if t.shape == shape and not _is_record(path, found)
            if not (path in found and found[path].is_still(t))
        }
        cut = all(t.grad_fn is None and not t.is_inference() for t in changed.values())
        if has_graph and changed:
            self._cuts = cut
        self._left = {}
        if cut and self._cuts is not False:
            self._left = {path: _Left(t) for path, t in changed.items()}
        for path, left in self._left.items():
            left.values = glance(changed[path]) if changed[path].is_cpu else None
        self._left_at = session.step, session.n_forwards


def _is_record(path: Path, found: dict[Path, _Left]) -> bool:
    """Whether a tensor was added to a list or a dictionary, rather than put in another's place."""
    return path not in found and any(isinstance(key, _Item) for key in path)


def _is_copy(state: Tensor, left: Tensor | None) -> bool:
    """Whether a state, or a part of the batch's, has the numbers that were left.

    Those of spikes, which are 0 or 1 in any other one as well, do not tell.
    """
    if left is None or bool(((left == 0) | (left == 1)).all()):
        return False
    return shares(glance(state), left)


def keeps_state(module: nn.Module) -> bool:
    """Whether the code of a module reads attributes before it sets them, as that of states does."""
    return bool(_read_first(own_type(module)))


def _held(module: nn.Module) -> Iterator[tuple[Path, Tensor]]:
    """The tensors that may be a state, with the way to them."""
    own, buffers = vars(module), module._buffers
    for name in _read_first(own_type(module)):
        value = own[name] if name in own else buffers.get(name)
        if value is not None:
            yield from _tensors(value, (name,))


def _tensors(value: Any, path: Path) -> Iterator[tuple[Path, Tensor]]:
    if isinstance(value, Tensor):
        if value.numel() and not isinstance(value, nn.Parameter):
            yield path, value
    elif len(path) > _DEEPEST:
        return
    elif isinstance(value, tuple):
        for key, part in enumerate(value):
            yield from _tensors(part, (*path, key))
    elif isinstance(value, dict | list) and len(value) <= _MOST_STATES:
        for item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors(item[1], (*path, _Item(item[0])))


@lru_cache(maxsize=512)
def _read_first(cls: type[nn.Module]) -> tuple[str, ...]:
    """Attributes that some method of a class reads before it sets them, if it ever does."""
    names = set[str]()
    for function in own_code(cls):
        first: dict[str, str] = {}
        for instruction in dis.get_instructions(function):
            if instruction.opname in (*_LOADS, "STORE_ATTR"):
                first.setdefault(instruction.argval, instruction.opname)
        names.update(name for name, opname in first.items() if opname in _LOADS)
    return tuple(sorted(n for n in names if not hasattr(nn.Module, n)))
