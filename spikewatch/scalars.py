"""Scalars that the user logs: read at once or, of a GPU, when they have come to the host."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .recorder import Recorder
from .session import LiveSession
from .snapshot import Copy


def record_scalars(
    scalars: Mapping[str, Any], recorder: Recorder, session: LiveSession, *, phase: str, step: int
) -> None:
    """Store scalars of a step. The training thread does not wait for a GPU."""
    for name, value in scalars.items():
        try:
            number = _later(value) if is_on_its_way(value) else _now(value)
        except (TypeError, ValueError, RuntimeError) as error:
            session.fault(name, error)
            continue
        recorder.record("scalars", phase=phase, step=step, name=name, value=number)


def is_on_its_way(value: object) -> bool:
    """Whether a value is one that a GPU has yet to compute and send."""
    # What else there is (a DTensor, several elements) `float` reads, or says what is wrong.
    plain = isinstance(value, Tensor) and type(value) in (Tensor, torch.nn.Parameter)
    return plain and value.is_cuda and value.numel() == 1 and not value.is_complex()


def _now(value: Any) -> float:
    return float(value.detach() if isinstance(value, Tensor) else value)


def _later(value: Tensor) -> Any:
    """A function for the writer thread; the copy is of the value as it is now."""
    copy = Copy(value.detach().reshape(1), n_scalars=1)
    return lambda: copy.numbers()[0][0]
