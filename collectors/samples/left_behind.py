"""Whether a neuron goes on with the state that its latest call left behind.

A sample may begin at any potential, at random ones too. There a state without a graph has replaced
the one that was left; truncated backpropagation through time, and all that runs without gradients,
goes on with its values. A look at some of them tells, on the CPU, where it costs no waiting.

A state at rest is no proof of a beginning, where it is the very tensor that the latest call left:
what a neuron makes of zeros is at rest as well.
"""

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spikewatch.observing import Session

from ..hooks import in_recomputation
from ..library import Start, States


_N_LOOKED_AT = 64
UNKNOWN = (
    "the potential that its calls of a step begin with is neither the same everywhere nor has it a "
    "graph: whether a sample begins there, or goes on, shows only in steps that are observed one "
    "after the other"
)


class Seen:
    """A tensor as it was seen last; it is not kept."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = weakref.ref(tensor)
        self._version = tensor._version

    def is_still(self, tensor: Any) -> bool:
        """Whether something is the same tensor, and nothing was written to it since."""
        return self._tensor() is tensor is not None and self._version == tensor._version


def may_be_seen(state: Any) -> bool:
    """Whether something is a tensor that counts what is written to it."""
    return isinstance(state, Tensor) and not state.is_inference()


class LeftBehind:
    """Remembers some numbers of the state that a layer was left with, in steps with such looks."""

    def __init__(self, states: States, *, is_users: bool) -> None:
        """Take where the states are; a library's neuron is looked at once that is needed."""
        self._states = states
        self._is_needed = is_users
        self._looks: list[Tensor] = []
        self._left_at: tuple[int, int] | None = None  # step, and forward pass
        self._step: int | None = None  # in which the layer was asked about
        self._goes_on: bool | None = None  # from a step to the next, ever; None: not seen yet
        self._begun: Seen | None = None  # the state of the call that runs
        self._left: list[Seen] = []  # those of the latest one, as far as it replaced them

    def leave(self, session: Session, module: nn.Module, output: Any) -> None:
        """A call is over."""
        if in_recomputation():
            return  # of one that is long over
        after = self._states.after(module, output)
        begun, self._begun = self._begun, None
        self._left = [
            Seen(s) for s in after if may_be_seen(s) and not (begun and begun.is_still(s))
        ]
        if not self._is_needed:
            return
        self._looks = [glance(s) for s in after if _is_seen(s)]
        self._left_at = session.step, session.n_forwards

    def starts(
        self,
        session: Session,
        name: str,
        call: tuple[nn.Module, tuple[Any, ...], Mapping[str, Any]],
        told: Start,
    ) -> Start:
        """Whether a sample begins with a call, of which the state alone tells `told`."""
        is_first, self._step = session.step != self._step, session.step
        state = next(iter(self._states.before(*call)), None)
        self._begun = None if state is None or not may_be_seen(state) else Seen(state)
        if told is not False:
            return False if any(left.is_still(state) for left in self._left) else told
        if not self._is_needed:
            cut = isinstance(state, Tensor) and state.grad_fn is None
            self._is_needed = cut and torch.is_grad_enabled()
            return told
        if not isinstance(state, Tensor) or state.grad_fn is not None or not _is_seen(state):
            return is_first and self._states.replaces(*call) is not False
        if self._left_at is None:
            return None  # the first call of all
        goes_on = self._has(state) if self._is_latest(session) else None
        if is_first and goes_on is not None:
            self._goes_on = self._goes_on or goes_on
        if goes_on is None:
            goes_on = self._goes_on
        if goes_on is None:
            session.note(name, UNKNOWN)
        return goes_on is False

    def _is_latest(self, session: Session) -> bool:
        """Whether no call may have gone by unseen since."""
        step, forward = self._left_at or (0, 0)
        return session.step - step <= 1 and session.n_forwards - forward <= 1

    def _has(self, state: Tensor) -> bool | None:
        """Whether the state, or a part of the batch's, is as it was left; None: nothing was."""
        look = glance(state)
        return any(shares(look, left) for left in self._looks) if self._looks else None


def _is_seen(state: Any) -> bool:
    return isinstance(state, Tensor) and state.is_cpu and state.numel() > 0


def glance(state: Tensor) -> Tensor:
    """Numbers from all over a state, as they are now."""
    flat = state.detach().reshape(-1)
    return flat[:: -(-flat.numel() // _N_LOOKED_AT)].clone()


def shares(one: Tensor, other: Tensor) -> bool:
    """Whether any number of a look is the same in another one."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(torch.isclose(one, other, rtol=0.0, atol=0.0, equal_nan=True).any())
