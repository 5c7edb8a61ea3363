"""Where in the code a function is called, and which layer a call there belongs to.

A place is a chain of calls, from the function's `apply` up to the forward that is watched. Code
that is written out has a place for each layer. A loop over layers has one for all of them: there
the weights behind a call tell which it is; a call that has none behind it (the first time step from
a state of zeros, an evaluation) is told by its turn, as of the last pass with a graph.
"""

import sys
from collections.abc import Hashable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch


_APPLY = torch.autograd.Function.apply.__func__.__code__
_CALL_IMPL = torch.nn.Module._call_impl.__code__
# A module that has hooks is called by a function within.
_CALLS = {_CALL_IMPL, *(c for c in _CALL_IMPL.co_consts if isinstance(c, CodeType))}
_MODULES = _CALL_IMPL.co_filename
_TORCH = str(Path(torch.__file__).parent)
_MOST_FRAMES = 12

Place = tuple[Hashable, ...]
Shape = tuple[int, ...]


def caller() -> FrameType | None:
    """The frame that called the function whose forward runs now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _APPLY:
        frame = frame.f_back
    return None if frame is None else frame.f_back


def caller_of_module() -> FrameType | None:
    """The frame that called the module whose hook runs now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code not in _CALLS:
        frame = frame.f_back
    while frame is not None and frame.f_code.co_filename == _MODULES:
        frame = frame.f_back
    return frame


def place_of(frame: FrameType | None, forward: CodeType | None) -> tuple[Place, Any]:
    """The place of a call, and the module that runs where the chain leaves the user's code.

    Args:
        frame: That which called the function.
        forward: The code at which the chain ends.

    Returns:
        The module is None where the chain ends at `forward`.
    """
    chain: list[Hashable] = []
    while frame is not None and len(chain) < 2 * _MOST_FRAMES:
        code = frame.f_code
        if code in _CALLS:
            return tuple(chain), frame.f_locals.get("self")
        if code.co_filename.startswith(_TORCH):
            break
        chain += (code, frame.f_lasti)
        if code is forward:
            break
        frame = frame.f_back
    return tuple(chain), None


class Turns:
    """Tells which of a place's layers each call is, from 0, in the order of their first calls."""

    def __init__(self) -> None:
        self._names: list[str] = []  # of the layers; "" where no weights were seen yet
        self._shapes: list[Shape] = []
        self._order: list[int] = []  # layers of the calls of the latest pass with a graph
        self._pass: list[int] = []  # those of the pass that runs
        self._unnamed: set[int] = set()  # its calls without weights behind them
        self._pass_id: object = None
        self._trains = False

    @property
    def mixed(self) -> bool:
        """Whether calls of several layers were taken for one in the first pass, which runs."""
        shapes = [self._shapes[self._pass[i]] for i in self._unnamed]
        return not self._order and any(
            shapes.count(shape) > 1 and self._shapes.count(shape) > 1 for shape in set(shapes)
        )

    def known(self, name: str, shape: Shape) -> int | None:
        """The layer that a call belongs to which comes in no order; None if that is not clear."""
        if name in self._names:
            return self._names.index(name)
        layers = list(zip(self._names, self._shapes, strict=True))
        alike = [i for i, layer in enumerate(layers) if layer == ("", shape)]
        return alike[0] if len(alike) == 1 else None

    def of(self, name: str, shape: Shape, *, pass_id: object, has_graph: bool) -> int:
        """Which layer a call belongs to.

        Args:
            name: The weights behind it; "" if none are seen.
            shape: Of its neurons.
            pass_id: Of the pass that runs; with another one the calls are counted anew.
            has_graph: Whether the call has a graph.
        """
        if pass_id is not self._pass_id:
            self._begin(pass_id)
        if not name:
            self._unnamed.add(len(self._pass))
        index = self._named(name, shape) if name else self._by_turn(shape)
        self._pass.append(index)
        self._trains |= has_graph
        return index

    def _begin(self, pass_id: object) -> None:
        if self._trains:
            self._order = self._filled() if not self._order else self._pass
        self._pass, self._unnamed, self._trains, self._pass_id = [], set(), False, pass_id

    def _filled(self) -> list[int]:
        """The first pass, with its calls that had no weights behind them told by later ones."""
        calls, n_layers = list(self._pass), len(set(self._pass))
        named = [i for i in range(len(calls)) if i not in self._unnamed]
        if all(calls[i] == calls[i + n_layers] for i in named if i + n_layers < len(calls)):
            for i in self._unnamed:  # a loop over the layers within a loop over time
                later = next((j for j in named if j > i and (j - i) % n_layers == 0), None)
                calls[i] = calls[i] if later is None else calls[later]
        return calls

    def _named(self, name: str, shape: Shape) -> int:
        if name in self._names:
            return self._names.index(name)
        for index, known in enumerate(zip(self._names, self._shapes, strict=True)):
            if known == ("", shape):
                self._names[index] = name
                return index
        return self._open(name, shape)

    def _by_turn(self, shape: Shape) -> int:
        turn = len(self._pass)
        if turn < len(self._order) and self._shapes[self._order[turn]] == shape:
            return self._order[turn]
        return self._shapes.index(shape) if shape in self._shapes else self._open("", shape)

    def _open(self, name: str, shape: Shape) -> int:
        self._names.append(name)
        self._shapes.append(shape)
        return len(self._names) - 1
