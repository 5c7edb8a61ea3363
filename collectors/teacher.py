"""The outputs of a student beside its teacher's, as the training loop asks for both.

Two forward hooks, one on each. They stay on between the steps in which they read, since a teacher
is mostly asked before its student. The outputs for a batch are kept until another batch comes, or
the step ends; of a model that is called for each time step their mean counts. Nothing is run a
second time.
"""

import time
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikewatch.layers import Layer, own_type
from spikewatch.observing import Counters, Counts, Session

from .hooks import Hook, in_recomputation, why_unreadable
from .quantized.sampling import strata


Who = Literal["student", "teacher"]

_MOST = 2**18  # elements of the outputs that are compared
_APART = 20  # looks without a pair, after which that is told


class _Seen(NamedTuple):
    """What one model made of its latest batch, summed over calls."""

    batch: Tensor
    total: Tensor
    n_calls: int
    phase: str

    @property
    def logits(self) -> Tensor:
        return self.total if self.n_calls == 1 else self.total / self.n_calls


class TeacherObserver:
    """Compares a student with its teacher in the steps that have the dear readings."""

    def __init__(self, student: nn.Module, teacher: nn.Module, *, temperature: float) -> None:
        # Of the kind that is not listed: it is no layer of the model.
        self.layer = Layer("teacher", "synapse", "user", own_type(teacher).__name__)
        self.always_on = True
        self._models: dict[Who, weakref.ref[nn.Module]] = {
            "student": weakref.ref(student),
            "teacher": weakref.ref(teacher),
        }
        self._temperature = temperature
        self._handles: list[Any] = []
        self._session: Session | None = None
        self._seen: dict[Who, _Seen] = {}
        self._counted: dict[str, list[Tensor]] = {}
        self._n_apart = 0

    def start(self, session: Session) -> None:
        """Put the hooks on."""
        self._session = session
        if self._handles:
            return
        for who, ref in self._models.items():
            if (model := ref()) is not None:
                hook = Hook(partial(self._after, who), self)
                self._handles.append(model.register_forward_hook(hook, with_kwargs=True))

    def stop(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._seen.clear()

    def _after(
        self, who: Who, module: nn.Module, args: tuple[Any, ...], kwargs: Any, output: Any
    ) -> None:
        session = self._session
        if session is None or not (session.active and session.detailed) or in_recomputation():
            return
        began = time.perf_counter()
        try:
            batch, logits = _first(args, kwargs), _logits(output)
            if batch is not None and logits is not None and not why_unreadable(logits):
                trains = module.training and torch.is_grad_enabled()
                phase = "train" if trains or who == "teacher" else session.phase()
                with torch.no_grad():
                    self._take(who, _Seen(batch, logits.detach(), 1, phase), session)
        except Exception as error:  # noqa: BLE001 - contract 1: never raise into training
            session.fault(self.layer.name, error)
        session.spent(time.perf_counter() - began)

    def _take(self, who: Who, now: _Seen, session: Session) -> None:
        before = self._seen.get(who)
        if before is not None and _goes_on(before, now):
            total = before.total + now.total
            self._seen[who] = before._replace(total=total, n_calls=before.n_calls + 1)
            return
        self._compare(session)
        self._seen[who] = now

    def _compare(self, session: Session) -> None:
        """Count the outputs of both models for one batch, where they have seen the same."""
        if len(self._seen) < 2:
            return
        student, teacher = self._seen["student"], self._seen["teacher"]
        if not _same(student.batch, teacher.batch):
            return
        self._seen.clear()
        mine, its = _aligned(student.logits, teacher.logits)
        if mine is None or its is None:
            session.note(
                self.layer.name,
                f"outputs of the student {tuple(student.logits.shape)} and of the teacher "
                f"{tuple(teacher.logits.shape)} cannot be compared",
            )
            return
        row = _distance(mine, its, temperature=self._temperature)
        self._counted.setdefault(student.phase, []).append(row)

    def forget(self, phase: str) -> None:
        """Drop what was compared since the last flush."""
        self._counted.pop(phase, None)
        self._seen.clear()

    def flush(self, phase: str) -> Counts | None:
        """Counters of the table `distillation`."""
        session = self._session
        if session is not None and self._seen:
            with torch.no_grad():
                self._compare(session)
        rows = self._counted.pop(phase, None)
        if phase == "train" and session is not None and session.detailed:
            self._n_apart = 0 if rows else self._n_apart + bool(self._seen)
            self._seen.clear()
            if self._n_apart == _APART:
                session.note(self.layer.name, "student and teacher never saw the same batch")
        if not rows:
            return None
        counters: Counters = {("n_compared", "sum_kl", "n_agreed"): torch.stack(rows).sum(0)}
        return Counts({"distillation": counters})


def _first(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The batch: the first tensor that a model was called with."""
    return next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or (
        one.shape == other.shape
        and one.device == other.device
        and one.data_ptr() == other.data_ptr()
    )


def _goes_on(before: _Seen, now: _Seen) -> bool:
    """Whether a call is for one more time step of a batch."""
    alike = before.phase == now.phase and before.total.shape == now.total.shape
    return alike and _same(before.batch, now.batch)


def _logits(output: Any) -> Tensor | None:
    """The scores in what a model returns: `logits` of it, its first tensor, or itself."""
    if isinstance(output, Mapping):
        output = output.get("logits")
    elif isinstance(getattr(output, "logits", None), Tensor):
        output = output.logits
    elif isinstance(output, tuple | list):
        output = next((x for x in output if isinstance(x, Tensor)), None)
    scores = isinstance(output, Tensor) and output.is_floating_point() and output.dim() >= 2
    return output if scores else None


def _aligned(student: Tensor, teacher: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Both as [rows, classes]; the mean over time where only one of them has that axis first."""
    if student.dim() == teacher.dim() + 1:
        student = student.mean(0)
    elif teacher.dim() == student.dim() + 1:
        teacher = teacher.mean(0)
    if student.shape != teacher.shape or student.shape[-1] < 2:
        return None, None
    return student.flatten(0, -2), teacher.flatten(0, -2).to(student.device)


def _distance(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Rows compared, Σ KL(p_T ‖ p_S)·τ², rows that agree: float64 [3]."""
    n = max(1, _MOST // student.shape[1])
    if len(student) > n:
        some = strata(len(student), n, device=student.device)
        student, teacher = student[some], teacher[some]
    mine, its = (functional.log_softmax(x.float() / temperature, -1) for x in (student, teacher))
    kl = functional.kl_div(mine, its, reduction="sum", log_target=True).double()
    agreed = (student.argmax(-1) == teacher.argmax(-1)).sum().double()
    n_rows = torch.full_like(kl, len(student))
    return torch.stack([n_rows, temperature**2 * kl, agreed])
