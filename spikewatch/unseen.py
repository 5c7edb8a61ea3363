"""Telling aloud what is not seen, before somebody takes silence for health.

Hooks are not called inside `torch.compile`, nor by `module.forward(x)`, nor by a CUDA graph that is
replayed. Where that is so, nothing of ours runs in the training: it is told by what is missing.
"""

import weakref
from collections.abc import Sequence

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
    "Hooks are not called inside torch.compile, nor by module.forward(x), nor when a CUDA graph is "
    "replayed"
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
PATIENCE_OPEN_STEPS = 16  # with a layer of which it is open what it makes
_PATIENCE_STEPS = 2
_PATIENCE_STEPS_SEEN = 4  # with a layer that was called before: an actor waits for its critic
_PATIENCE_LOOKS = 3
_N_NAMES = 6
_N_WEIGHTS = 16


class Weights:
    """Tells whether training has changed a model's weights, from any thread, without a transfer."""

    def __init__(self, model: nn.Module) -> None:
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

    def blind(self) -> None:
        """The optimizer steps, and no forward pass was seen."""
        self._is_blind = True
        self._session.note("", _BLIND, aloud=True)

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
    names = ", ".join(map(repr, layers[:_N_NAMES]))
    if len(layers) > _N_NAMES:
        names += f" and {len(layers) - _N_NAMES} more"
    return _SILENT.format(names=names, n=n_steps, why=_WHY)
