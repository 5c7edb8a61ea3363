"""What a layer is known as: as it was found at first, and then what its calls have shown it to be.

The record is told of each change here, and of all that the user should know of the layer.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from spikewatch.layers import Layer, own_type
from spikewatch.observing import Session
from spikewatch.unseen import PATIENCE_OPEN_STEPS

from .candidates import Candidate, Evidence, Made, Verdict
from .recognise import BY_HAND, Found, has_weights
from .surrogate import surrogate_nodes


_NO_FUNCTIONS: Mapping[Any, Made] = {}
_CONFIRMED = {
    "class": "",
    "code": "made by an autograd function",
    "threshold": "has a threshold, and its output is spikes",
    "trick": "has a state, and makes spikes by a detach trick",
}
_OPEN = (
    "not counted yet: whether it makes spikes is open, since in {n} observed steps or evaluations "
    "it {why}. If it does, {what}"
)
_NAME_IT = "name it: attach(model, layers=[its name])"
_TAP_THEM = "pass them through spikewatch.tap('name', spikes)"


class Standing:
    """Keeps what one layer is known as.

    Attributes:
        layer: What is stored of it.
        candidate: Who judges its calls.
        session: Whom to tell; None before the first step.
        waits: Whether it was called, and nothing could be said yet of what it makes.
    """

    def __init__(self, found: Found, claims: WeakSet[Any], spiking: set[type]) -> None:
        """Take what was found, the nodes that inner layers claim, and classes proven to spike."""
        self.layer = Layer(
            name=found.name,
            kind=found.kind,
            library=found.library.name,
            type=own_type(found.module).__name__,
            note=found.note,
        )
        own = found.module._parameters.values()
        self._is_matrix = any(p is not None and p.dim() > 1 for p in own)
        by: Evidence = "library" if found.nested else found.by
        self.candidate = Candidate(
            found_by=by,
            claims=claims,
            cls=own_type(found.module),
            spiking=spiking,
            has_weights=has_weights(found.module),
        )
        self.candidate.sure = (found.sure and not found.nested) or found.note == BY_HAND
        self.session: Session | None = None
        self.waits = False
        self._by = found.by
        self._open_phases: set[str] = set()  # of calls since the last flush that were not counted
        self._n_open_steps = 0
        self._further_sites: set[str] = set()

    # ---------------------------------------------------------------------------------- telling

    def tell(self, message: str, *, aloud: bool = False) -> None:
        """Store, once, what the user should know of the layer."""
        if self.session is not None:
            self.session.note(self.layer.name, message, aloud=aloud)

    def spent(self, seconds: float) -> None:
        """Say how long an observation took."""
        if self.session is not None:
            self.session.spent(seconds)

    def fault(self, error: Exception) -> None:
        """Take note of a failure inside a hook."""
        if self.session is not None:
            self.session.fault(self.layer.name, error)

    def optimizes(self, parameter: Tensor) -> bool:
        """Whether an optimizer of the model holds a parameter."""
        return self.session is not None and self.session.optimizes(parameter)

    def confirm_site(self, suffix: str) -> None:
        """Store a further site, once: it is found in each phase, and anew where shapes change."""
        if self.session is not None and suffix not in self._further_sites:
            self._further_sites.add(suffix)
            name, note = self.layer.name + suffix, f"{self.layer.name!r} at another site"
            self.session.confirm(replace(self.layer, name=name, note=note))

    # --------------------------------------------------------------------------------- verdicts

    def judge(
        self,
        session: Session,
        args: tuple[Any, ...],
        spikes: Tensor,
        made: Mapping[Any, Made] = _NO_FUNCTIONS,
        functions: frozenset[Any] | None = None,
    ) -> Verdict:
        """Look at one call of a layer that is not sure.

        Args:
            session: The session that observes the call.
            args: What the layer was called with.
            spikes: What it returned.
            made: What functions have made within the call, as far as it was heard, by their nodes.
            functions: Those that its code can reach, where they are heard: no others count.
        """
        nodes = surrogate_nodes(spikes) if spikes.requires_grad else []
        if functions is not None:
            nodes = [n for n in nodes if n._forward_cls in functions]
        with torch.no_grad():
            verdict = self.candidate.judge(args, spikes, nodes, made)
        self.waits = verdict == "wait"
        if self.waits:
            self._open_phases.add(session.phase())
        elif verdict == "yes" and self.layer.kind == "candidate":
            note = self.candidate.why or _CONFIRMED[self._by]
            self.layer = replace(self.layer, kind="spiking", note=note)
            session.confirm(self.layer)
        return verdict

    def reject(self, session: Session, *, hears_functions: bool) -> None:
        """The layer makes no spikes; `hears_functions`: what is made within it is heard."""
        why = f"not counted as a spiking layer: {self.candidate.why}"
        if hears_functions:  # that may make a layer of the same name
            why = f"what it returns is not counted: {self.candidate.why}"
            why += ". What functions make within it is, where it is spikes"
        elif self._by == "trick":
            why += f". If it makes spikes within its forward, {_TAP_THEM} there"
        if self._by != "trick" or not self._is_matrix:  # tricks quantize weights as well
            session.note(self.layer.name, why)
        if self.layer.kind == "spiking":  # as it was stored, when it was found
            self.layer = replace(self.layer, kind="candidate", note=why)
            session.confirm(self.layer)

    def forget(self, phase: str) -> None:
        """What is open of the step that runs does not matter: none of it is counted."""
        self._open_phases.discard(phase)

    def end_step(self, phase: str, *, is_seen: bool = False) -> bool:
        """Whether calls of the step, or evaluation, that ends were not counted: it was open.

        `is_seen`: what functions make within it was counted, whatever becomes of what it returns.
        """
        if phase not in self._open_phases:
            return False
        self._open_phases.remove(phase)
        if is_seen:
            return True
        self._n_open_steps += 1
        if self.waits and self._n_open_steps == PATIENCE_OPEN_STEPS:
            n, why = self._n_open_steps, self.candidate.why
            what = _NAME_IT if self.layer.name else _TAP_THEM
            self.tell(_OPEN.format(n=n, why=why, what=what), aloud=self.candidate.is_silent)
        return True
