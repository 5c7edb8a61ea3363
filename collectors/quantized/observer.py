"""The observer of one layer's quantized weights.

On an observed step it looks once, in the layer's first forward pass, at the weight that the layer
multiplies with. Off the observed steps there is one hook that returns at once.
"""

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from spikewatch.layers import Layer, own_type
from spikewatch.observing import Counts, Session
from spikewatch.unheard import unheard

from ..hooks import why_unreadable
from .adapters import ask
from .backward import Backward
from .instruments import INSTRUMENTS, Weights
from .kernels import Kernel, is_wrapper
from .latent_elsewhere import Elsewhere
from .latent_search import LatentSearch
from .levels import Levels, may_have_levels
from .look import Look
from .pairs import Pair
from .pieces import Shift
from .place import Place
from .seeing import Sight
from .verdicts import Verdict


_ANOTHER = (
    "its weights are another parameter than before: what is counted of their changes, as flips and "
    "drift, has begun anew"
)
# In so many of the first steps of training are the weights of plain layers glanced at.
_MOST_GLIMPSES = 2


class WeightObserver:
    """Watches the quantized and the latent weight of one layer.

    Attributes:
        layer: What is watched.
        called: Whether the layer was called in an observed step; None while it is only a guess that
            it has weights to look at.
        always_on: Whether its hooks have to stay on.
        pair: The two binary kernels of which it may be one.
        place: Where in its model the layer stands, if that is known.
        backward: Listens for the gradient of the quantized weight.
        verdict: What its weights are.
    """

    def __init__(
        self,
        kernel: Kernel,
        sight: Sight,
        owner: nn.Module,
        *,
        place: Place | None = None,
        told: Callable[[nn.Module], Tensor] | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.layer = Layer(
            name=kernel.layer,
            kind="synapse" if kernel.plain else "candidate",
            library=_maker(owner, kernel.attribute).__module__.split(".")[0],
            type=own_type(owner).__name__,
            note="its weights are looked at in the first step",
        )
        self.called: bool | None = None if kernel.guess or kernel.path else False
        self.pair: Pair | None = None
        self.verdict = Verdict()
        self._kernel = kernel
        self._sight = sight
        self.place = place
        self._told = told
        self._search = LatentSearch(kernel, elsewhere)
        self._session: Session | None = None
        self._parameter: weakref.ref[Tensor] | None = None
        self._counted: dict[str, Counts] = {}
        self._n_unseen = 0
        self._glimpses: list[int] = []
        self._again: Callable[[Tensor], Tensor | None] = lambda latent: latent
        self._instruments = [make() for make in INSTRUMENTS]
        self.backward = Backward(self._instruments, lambda: self.layer.name)
        sight.add(self)

    @property
    def always_on(self) -> bool:
        """Whether its hooks have to stay on between observed steps."""
        return self._sight.always_on

    @property
    def module(self) -> nn.Module | None:
        """The module that multiplies with the weight, while it lives."""
        return self._sight.module

    @property
    def owner(self) -> nn.Module | None:
        """The module that keeps the weight, while it lives."""
        module = self._sight.module
        return None if module is None else self._kernel.owner(module)

    def owner_in(self, module: nn.Module) -> nn.Module:
        """The same of a module, or a replica of it, that runs now."""
        return self._kernel.owner(module)

    def start(self, session: Session) -> None:
        """Put the hooks on."""
        self._session = session
        if not (self._is_plain and len(self._glimpses) == _MOST_GLIMPSES):
            self._sight.start(session)

    def stop(self) -> None:
        """Take the hooks off."""
        self._sight.stop()

    def look(
        self, session: Session, module: nn.Module, args: tuple[Any, ...], phase: str
    ) -> Look | None:
        """What a forward pass is to be looked at for; None where for nothing."""
        if self.called is not None:
            self.called = True
        if phase in self._counted:  # called again: the weights are the same
            listens = self.backward.listens and phase == "train"
            return (
                Look(self, session, module, args, phase, due=False, counted=True)
                if listens
                else None
            )
        if self._is_plain and not self._glimpse(session, module, phase):
            return None
        owner = self._kernel.owner(module)
        due = self.verdict.is_due(owner)
        if not (due or self.verdict.is_ternary or self.verdict.on_its_way or self._pairs_up):
            self.verdict.pass_by()
            return None
        return Look(self, session, module, args, phase, due=due)

    @property
    def _is_plain(self) -> bool:
        """Whether the weights are those of a layer of torch's own, in full precision so far."""
        return self.layer.kind == "synapse"

    def _glimpse(self, session: Session, module: nn.Module, phase: str) -> bool:
        """Whether to look at such weights: in the first steps, and if one block has few values."""
        seen = self._glimpses
        if phase != "train" or session.step in seen or len(seen) == _MOST_GLIMPSES:
            return False
        seen.append(session.step)
        weight = self._kernel.latent(module)
        weight = getattr(weight, "_local_tensor", weight)  # all of a sharded one is a collective
        if weight is None or is_wrapper(weight) or why_unreadable(weight) or not weight.numel():
            return False
        return may_have_levels(weight)

    @property
    def _pairs_up(self) -> bool:
        levels = self.verdict.levels
        return self.pair is not None and levels is not None and levels.form == "binary"

    def shape(self, module: nn.Module) -> tuple[int, ...] | None:
        """Shape of the weight; None where the module has none (now)."""
        if self._kernel.shape is not None:
            return self._kernel.shape
        kept = self._kernel.kept(module)
        return None if kept is None or kept.dim() < 2 else tuple(kept.shape)

    def latent(self, module: nn.Module) -> Tensor | None:
        """The latent weight, as the layer keeps it; None where it keeps a quantized one only."""
        return self._kernel.latent(module)

    def is_hidden(self, module: nn.Module) -> bool:
        """Whether only operations below Python see the quantized weight."""
        kept = getattr(self._kernel.owner(module), self._kernel.attribute, None)
        return isinstance(kept, Tensor) and is_wrapper(kept) and hasattr(kept, "_data") and (
            "dequantize" not in vars(type(kept))
        )  # fmt: skip

    def outputs_first(self, weight: Tensor) -> Tensor:
        """A view of the layer's weight with the outputs first; or the way back."""
        module = self._sight.module
        return weight if module is None else self._kernel.outputs_first(module, weight)

    @property
    def is_own(self) -> bool:
        """Whether the module keeps the weight that it multiplies with itself."""
        return not self._kernel.path

    def ask(self, module: nn.Module) -> Tensor | None:
        """The quantized weight as the user's function, or else the layer itself, tells it."""
        owner = self._kernel.owner(module)
        if self._told is not None:
            told = self._told(owner)
            if not isinstance(told, Tensor) or told.dim() < 1:
                raise TypeError(
                    f"the function in `quantized` for {self.layer.name!r} returned "
                    f"{type(told).__name__}; it should return the quantized weight, a tensor"
                )
            return self.outputs_first(told.detach())
        told = ask(owner, self._kernel.attribute)
        return None if told is None else self.outputs_first(told)

    @property
    def is_told(self) -> bool:
        """Whether the user's function gives the weight."""
        return self._told is not None

    # ---------------------------------------------------------------- what was seen

    def take(self, look: Look, weight: Tensor, levels: Levels, *, call: int, judged: bool) -> None:
        """Take the weight that a forward pass has multiplied with, and count it."""
        session, module = look.session, look.module
        self._n_unseen = 0
        if look.phase == "train":
            self._follow(session, self._kernel.latent(module))
        found = self._search.beside(module, weight, levels, judged=judged, stacked=look.is_stacked)
        weight, latent, self._again = weight.detach(), found.latent, found.again
        owner, trained = self._kernel.owner(module), found.is_trained
        if not judged:
            self.verdict.pass_by()
        elif self.verdict.adopt(levels, weight, latent, owner, call=call, trained=trained):
            self._tell(session)
        levels = self.verdict.levels or levels
        if self.pair is not None and levels.form == "binary":
            self.pair.offer(self, look, weight)
        self._count(look, weight, latent, levels)

    def _follow(self, session: Session, latent: Tensor | None) -> None:
        """What is counted of changes is of one parameter: where it is replaced, it begins anew."""
        if not isinstance(latent, nn.Parameter):
            return
        before = self._parameter
        if before is None or before() is not latent:
            self._parameter = weakref.ref(latent)
            if before is not None:
                self._instruments[:] = [make() for make in INSTRUMENTS]
                session.note(self.layer.name, _ANOTHER)

    def _count(self, look: Look, weight: Tensor, latent: Tensor | None, levels: Levels) -> None:
        session = look.session
        if self.place is not None and not (self.pair is not None and levels.form == "binary"):
            is_ternary = levels.form == "ternary"
            self.place.census.count(self.place, weight.numel() if is_ternary else 0)
        latent = weight if latent is None else latent
        stacked = look.is_stacked
        shift = Shift.of(weight, levels, stacked=stacked) if levels.shifted else None
        weights = Weights(
            weight,
            latent,
            levels.granularity if levels.form == "ternary" else None,
            self._kernel.owner(look.module),
            phase=look.phase,
            step=session.step,
            detailed=session.detailed,
            most_tracked=session.track_weights,
            place=self.place,
            levels=levels,
            stacked=stacked,
            shift=shift,
        )
        counts = Counts({})
        for instrument in self._instruments:
            early = self.verdict.on_its_way and instrument.before_levels
            if levels.form == "ternary" or early or instrument.after_levels:
                counts.include(instrument.read(weights))
        self._counted[look.phase] = counts

    def _tell(self, session: Session) -> None:
        verdict = self.verdict
        levels, note = verdict.levels, verdict.note
        if levels is None or self._is_no_layer(levels):
            return
        named = levels.form in ("ternary", "binary", "n-bit") or verdict.on_its_way
        if not named:
            text = f"its weights are not ternary now ({note}); looked at again later"
            session.note(self.layer.name, text)
            return
        kind = "ternary" if verdict.is_ternary else "quantized"
        news = kind != self.layer.kind
        self.layer = replace(self.layer, kind=kind, note=note)
        if self.called is None:
            self.called = True
        if news:
            session.confirm(self.layer)
        elif kind == "quantized":
            session.note(self.layer.name, note)

    def _is_no_layer(self, levels: Levels) -> bool:
        """Whether these are a mask that a module keeps, or the beginning of a plain layer."""
        if self._is_plain:
            return levels.form not in ("ternary", "binary")
        module = self._sight.module
        kept = None if module is None else self._kernel.latent(module)
        return self._kernel.guess and levels.is_mask and kept is not None and not kept.requires_grad

    def not_seen(self, session: Session) -> None:
        """Take note of a forward pass that has multiplied with nothing that could be its weight."""
        self._n_unseen += 1
        if self._n_unseen == 1 and self.layer.kind == "candidate" and not self._kernel.guess:
            session.note(
                self.layer.name,
                "the product with its weights was not seen. If they are quantized, hand over how "
                f"to read them: attach(model, quantized={{{self.layer.name!r}: function}})",
            )

    # ---------------------------------------------------------------- the step's end

    def flush(self, phase: str) -> Counts | None:
        """Counters of all instruments; None where the weight is not ternary."""
        session, module = self._session, self._sight.module
        if phase == "train" and phase not in self._counted and session is not None:
            self._ask_late(session, module)
        counts = self._counted.pop(phase, None)
        if counts is None or session is None or module is None:
            return None
        if counts.tables and phase == "train" and session.detailed:
            with unheard(), torch.no_grad():
                self._end(counts, module)
        if phase == "train":
            self.backward.end()
        if self.place is not None and "weights" in counts.tables:
            # Only now all layers of the step have been seen.
            counts.tables["weights"]["n_ternary_weights"] = self.place.census.n_ternary
        if self.pair is not None:
            self.pair.add_to(counts, self, phase)
        return counts if counts.tables or counts.sites else None

    def forget(self, phase: str) -> None:
        """Drop nothing: weights are what they are, also in a forward pass that raises."""

    def _end(self, counts: Counts, module: nn.Module) -> None:
        owner, left = self._kernel.owner(module), self._kernel.after_step(module)
        if left is None:
            return
        # Of a sharded one, what is here: the rest is elsewhere again.
        source, gradient = left[0], getattr(left[1], "_local_tensor", left[1])
        latent = self._again(self.outputs_first(getattr(source, "_local_tensor", source)))
        if latent is None:
            return
        if gradient is not None:
            gradient = self._again(self.outputs_first(gradient.detach()))
        for instrument in self._instruments:
            counts.include(instrument.end(owner, latent, gradient))

    def _ask_late(self, session: Session, module: nn.Module | None) -> None:
        """Ask the layer at the end of a step in which no forward pass of it was seen (compiled)."""
        unseen = self.called is False or (self._told is not None and not self.called)
        if module is None or not unseen or not session.active:
            return
        if Look(self, session, module, (), "train", due=True).ask() and self.called is not None:
            self.called = True


def _maker(owner: nn.Module, attribute: str) -> type:
    """The type that quantizes: the weight's own, or else the module's."""
    weight = owner._parameters.get(attribute)
    return type(weight) if weight is not None and is_wrapper(weight) else own_type(owner)
