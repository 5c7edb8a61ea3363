"""Telling aloud what is not seen, before somebody takes silence for health.

Hooks are not called inside `torch.compile` or a scripted copy, nor by `module.forward(x)`, nor by a
CUDA graph that is replayed. Where that is so, nothing of ours runs in the training: it is told by
what is missing.
"""

import weakref
from collections.abc import Iterable, Sequence

from torch import nn

from .layers import Layer
from .observing import Observer
from .session import LiveSession


_NOTHING_FOUND = (
    "until now no layer made spikes, as far as can be seen, or had ternary weights. If a module "
    "does, name it: attach(model, layers=['name']). If a function does, pass its output through "
    "spikewatch.tap('name', spikes) where it is called, in forward or in another method"
)
_STILL_OPEN = (
    ". Layers of your own are not known as long as they never fire, or are called under "
    "torch.no_grad only"
)
_WHY = (
    "Hooks are not called inside torch.compile or what torch.jit made, nor by module.forward(x), "
    "nor when a CUDA graph is replayed"
)
_BLIND = (
    f"the model is trained, but no forward pass of it is seen. {_WHY}. To see inside, run some "
    "steps without compile or graph, and call model(x)"
)
_SILENT = (
    "{names}: not called in the latest {n} observed steps. Either forward does not use them, or no "
    "input took this way (an expert, a branch), or they are not seen. {why}. To see more, call "
    "layer(x), leave it out of what is compiled, or pass its spikes through "
    "spikewatch.tap('name', spikes)"
)
_RAISED = (
    "a forward pass raised an exception, and the training went on. What such a pass did before is "
    "not counted; a step that had other passes too gets no row"
)
_REPEATED = (
    "an optimizer steps again though no backward pass has come between. Each time counts as a "
    "step, and nothing runs in it: such steps have no row"
)
_MISSED_TURNS = (
    "the optimizer of {names} takes turns with another one, and none of the {n} latest observed "
    "steps was one of its own. Layers that get no gradient in those are not judged for it. To see "
    "its steps, give attach() an `every` that has no factor in common with the number of optimizer "
    "steps in a round, or every='auto'"
)
PATIENCE_OPEN_STEPS = 16  # with a layer of which it is open what it makes
_PATIENCE_STEPS = 2
_PATIENCE_STEPS_SEEN = 4  # with a layer that was called before: an actor waits for its critic
_PATIENCE_LOOKS = 3
_N_NAMES = 6
_N_WEIGHTS = 16


class Weights:
    """Tells whether training has changed a model's weights, from any thread, without a transfer."""

    def __init__(self, model: nn.Module) -> None:
        self.follow(model)

    def follow(self, model: nn.Module) -> None:
        """Take the weights that a model has now."""
        ours = [p for p in nn.Module.parameters(model) if p.requires_grad][:_N_WEIGHTS]
        self._weights = [weakref.ref(p) for p in ours]
        self._version = self._now()

    def changed(self) -> bool:
        """Whether a weight was written to since the last call."""
        before, self._version = self._version, self._now()
        return self._version != before

    def _now(self) -> int:
        # Autograd's own count of the in-place changes to a tensor.
        return sum(p._version for ref in self._weights if (p := ref()) is not None)


class Unseen:
    """Looks out for what should be seen, and is not."""

    def __init__(self, model: nn.Module, session: LiveSession) -> None:
        self._session = session
        self._silent_steps: dict[str, int] = {}
        self._seen: set[str] = set()
        self._told: set[str] = set()
        self._weights = Weights(model)
        self._sign_of_life = (0, 0)
        self._n_blind_looks = 0
        self._is_blind = False  # in this step
        self._undecided = True  # whether any of the layers makes spikes
        self._n_undecided = 0  # observed steps
        self._misses_turns = False  # as was told

    def follow(self, model: nn.Module, ended: Iterable[str]) -> None:
        """The model has changed, and layers of these names were taken out of it."""
        self._weights.follow(model)
        for name in ended:
            self._silent_steps.pop(name, None)
            self._seen.discard(name)
            self._told.discard(name)

    def blind(self) -> None:
        """The optimizer steps, and no forward pass was seen."""
        self._is_blind = True
        self._session.note("", _BLIND, aloud=True)

    def raised(self) -> None:
        """A forward pass in an observed step, or evaluation, has raised."""
        self._session.note("", _RAISED)

    def repeated(self) -> None:
        """In an observed step an optimizer has stepped on gradients that it has used before."""
        self._session.note("", _REPEATED)

    def missed_turns(self, parameters: Sequence[str], n_steps: int) -> None:
        """Steps of an optimizer, that holds these parameters, are never among those observed."""
        if not self._misses_turns:  # the number differs from step to step
            self._misses_turns = True
            names = _some(parameters)
            self._session.note("", _MISSED_TURNS.format(names=names, n=n_steps), aloud=True)

    def after_step(self, observers: Sequence[Observer], layers: Sequence[Layer]) -> None:
        """An observed step has ended: is anything found, and which layers were not called?"""
        is_blind, self._is_blind = self._is_blind, False
        if self._undecided and all(x.kind == "candidate" for x in layers):
            self._decide(waits=any(getattr(x, "waits", False) for x in observers))
            return
        self._undecided = False
        if not is_blind:
            self._look_for_silent(observers)

    def _decide(self, *, waits: bool) -> None:
        # Without gradients, as where an actor only acts, it cannot be told yet.
        self._n_undecided += 1
        self._undecided = waits and self._n_undecided < PATIENCE_OPEN_STEPS
        if not self._undecided:
            self._session.note("", _NOTHING_FOUND + (_STILL_OPEN if waits else ""), aloud=True)

    def _look_for_silent(self, observers: Sequence[Observer]) -> None:
        silent: dict[int, list[str]] = {}  # by how many steps they were
        for observer in observers:
            called, name = getattr(observer, "called", None), observer.layer.name
            if called is None:
                continue
            if called:
                self._seen.add(name)
            n = self._silent_steps[name] = 0 if called else self._silent_steps.get(name, 0) + 1
            patience = _PATIENCE_STEPS_SEEN if name in self._seen else _PATIENCE_STEPS
            if n == patience and name not in self._told:
                silent.setdefault(n, []).append(name)
            observer.called = False  # ty: ignore[missing-attribute]
        for n, names in silent.items():
            self._told.update(names)
            self._session.note("", _not_called(names, n), aloud=True)

    def look(self) -> None:
        """Look from another thread whether weights change while nothing of us is called at all."""
        session = self._session
        life, self._sign_of_life = self._sign_of_life, (session.n_forwards, session.step)
        if not self._weights.changed():
            return
        self._n_blind_looks = self._n_blind_looks + 1 if life == self._sign_of_life else 0
        if self._n_blind_looks == _PATIENCE_LOOKS:
            self.blind()


def _not_called(layers: list[str], n_steps: int) -> str:
    return _SILENT.format(names=_some(layers), n=n_steps, why=_WHY)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_N_NAMES]))
    return shown if len(names) <= _N_NAMES else f"{shown} and {len(names) - _N_NAMES} more"
