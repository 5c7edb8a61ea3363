"""Following a model whose layers change while it is watched.

In the first forward pass of each observed step it is looked at whether the model has other modules
than before. Where it has, the collectors are asked about what is new; who watched what is gone
leaves, and its layer has ended, with all that is told of it.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from .changes import Changes, Modules
from .finding import Finder
from .layers import Layer
from .listening import Listening
from .observers import Observers
from .observing import Observer
from .steps import StepClock
from .unheard import unheard
from .unseen import Unseen


# A model that is another one in each step is looked at ever more rarely, after 1, 2, 4, … steps:
# to ask the collectors takes some 50 ms.
_MOST_DOUBLINGS = 6
_MOST_NOTES = 32
_NO_MORE = ". Further changes are followed, and not told of"
_N_NAMES = 8
_UNLISTED = ("synapse", "candidate")
_ORDER = {kind: i for i, kind in enumerate(_UNLISTED)}


class Renewal:
    """Has the observers of a model follow it."""

    def __init__(
        self,
        model: nn.Module,
        finder: Finder,
        observers: Observers,
        listening: Listening,
        unseen: Unseen,
        *,
        flush: Callable[[str], None],
    ) -> None:
        """Take the model as it was attached to, who knows it, and what hands over counters."""
        self._finder = finder
        self._observers = observers
        self._session = observers.session
        self._listening = listening
        self._unseen = unseen
        self._flush = flush
        self._modules = Modules(model)
        self._n_in_a_row = self._next_step = 0
        self._n_notes = 0
        self._has_new = False

    def follow(self, model: nn.Module, clock: StepClock) -> None:
        """Look whether the model has other layers than before, and watch those that it has now."""
        if not self._is_due() or clock.are_parameters_swapped:
            return
        if self._session.eval_pending:  # that was counted of the layers that there were
            self._flush("eval")
        self._unseen.follow(model, self._renew(model))
        clock.follow(model)

    def take_new(self) -> bool:
        """Whether observers have come since this was asked last."""
        new, self._has_new = self._has_new, False
        return new

    def _is_due(self) -> bool:
        """Whether the model has changed; asked once in an observed step."""
        step = self._session.step
        if step < self._next_step or not self._modules.have_changed():
            return False
        again = step <= self._next_step + 1
        self._n_in_a_row = min(self._n_in_a_row + 1, _MOST_DOUBLINGS) if again else 0
        self._next_step = step + 2**self._n_in_a_row
        return True

    def _renew(self, model: nn.Module) -> list[str]:
        """Have observers leave and come; returns the names of layers that have ended."""
        with torch.inference_mode(False), unheard():
            before = {id(o): self._modules.at(o.layer.name) for o in self._observers.found}
            changes = self._modules.look(model)
            leave = [
                o
                for o in self._observers.found
                if self._finder.has_found(o) and not _stays(o, before[id(o)], changes)
            ]
            come = self._finder.find_again(model, taken=changes.known, leave=leave)
        if not (leave or come):
            return []
        self._has_new |= bool(come)
        ended = self._end(leave, come)
        self._observers.replace(leave, come, model)
        self._listening.follow(model, come)
        return ended

    def _end(self, leave: Sequence[Observer], come: Sequence[Observer]) -> list[str]:
        """Tell of what ends and what comes."""
        step = self._session.step
        old, new = _layers(leave), _layers(come)
        listed = {name: x for name, x in old.items() if x.kind not in _UNLISTED}
        # Of a plain layer whose module got another class there are the same figures as before.
        still = {(o.layer.name, id(_module_of(o))) for o in come}
        goes_on = {o.layer.name for o in leave if (o.layer.name, id(_module_of(o))) in still}
        for name in old:
            here = f"{_of_type(new[name])} has its place" if name in new else "it was taken out"
            if name in listed or name not in goes_on:
                self._session.end(name, f"{here}, as was found at step {step}")
        shown = {name: x for name, x in new.items() if x.kind != "synapse"}
        if self._n_notes < _MOST_NOTES and (listed or shown):
            self._n_notes += 1
            note = _note(listed, shown, step)
            self._session.note("", note + _NO_MORE * (self._n_notes == _MOST_NOTES))
        return list(old)


def _layers(observers: Iterable[Observer]) -> dict[str, Layer]:
    """Their layers by name; of several of one name, that which is listed."""
    every = [x for o in observers for x in (o.layer, *getattr(o, "inner_layers", ()))]
    return {x.name: x for x in sorted(every, key=lambda x: _ORDER.get(x.kind, len(_ORDER)))}


def _stays(observer: Observer, before: nn.Module | None, changes: Changes) -> bool:
    """Whether what an observer watches is as it was."""
    module = _module_of(observer, before)
    return module is not None and id(module) in changes.kept


def _module_of(observer: Observer, otherwise: nn.Module | None = None) -> nn.Module | None:
    return getattr(observer, "module", otherwise)


def _note(old: dict[str, Layer], new: dict[str, Layer], step: int) -> str:
    both = [x for name, x in new.items() if name in old]
    came = [x for name, x in new.items() if name not in old]
    gone = [x for name, x in old.items() if name not in new]
    parts = [
        f"{words}: {_some(layers)}"
        for words, layers in (
            ("new", came),
            ("replaced, and counted anew", both),
            ("removed, and watched no more", gone),
        )
        if layers
    ]
    return f"the model's layers have changed, as was found at step {step}. {'; '.join(parts)}"


def _some(layers: Iterable[Layer]) -> str:
    named = [f"{x.name!r} ({_of_type(x)})" for x in layers]
    more = f" and {len(named) - _N_NAMES} more" if len(named) > _N_NAMES else ""
    return ", ".join(named[:_N_NAMES]) + more


def _of_type(layer: Layer) -> str:
    return f"{layer.library}.{layer.type}"
