"""What a layer's weights are: judged, latched, looked at again, and told in words."""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from .adapters import told_levels
from .annealing import own_lambda, stage_of
from .levels import FULL, Levels, judge


# A verdict "ternary" is looked at again after so many observed steps; another one in each of the
# first steps, and later as rarely as this, unless the layer is on its way or has changed its stage.
_TERNARY_STEPS = 16
_OTHER_STEPS = 8
_FIRST_STEPS = 4
# What code calls the stage of a quantizer that is yet to come to its end.
_STAGES = (
    "lambda_", "lmbda", "quant_lambda", "anneal", "annealing", "stage", "phase", "mode",
    "temperature", "tau", "temp", "progress", "quant_delay", "quantize", "enabled",
)  # fmt: skip
_TELLING = _STAGES[:6] + _STAGES[8:12]
_RANKS = {"ternary": 4, "binary": 3, "n-bit": 2, "full": 1, "empty": 0}
_LEAST_STAGE = 0.02
_MOST_TERNARY = 3


class Verdict:
    """The levels of one layer's weights, as known now.

    Attributes:
        levels: What was found last; None before anything was.
        call: Which of the products that fit in a forward pass is the one with the weights.
        note: The verdict in words.
        on_its_way: Whether the layer is not ternary yet, and says or shows that it will be.
    """

    def __init__(self) -> None:
        self.levels: Levels | None = None
        self.call = 0
        self.note = ""
        self.on_its_way = False
        self._n_looked = 0
        self._n_since = 0
        self._stage: tuple[Any, ...] = ()
        self._what: tuple[Any, ...] = ()
        self._doubted: tuple[str, float | None] | None = None

    @property
    def is_ternary(self) -> bool:
        """Whether the weights have levels that count as ternary ones."""
        return self.levels is not None and self.levels.form == "ternary"

    def is_due(self, module: nn.Module) -> bool:
        """Whether the weights are to be judged in this step."""
        if self.levels is None or self._n_looked < _FIRST_STEPS or self._stage != _stage(module):
            return True
        if self._doubted is not None:
            return True
        if self.is_ternary:
            return self._n_since >= _TERNARY_STEPS
        return self.on_its_way or self._n_since >= _OTHER_STEPS

    def judge(self, weight: Tensor, *, stacked: bool = False) -> Levels:
        """The levels of a weight, in the light of what they were."""
        found, before = judge(weight, stacked=stacked), self.levels
        if before is None or before.form != "ternary":
            return found
        if found.form == "binary" or (found.form == "n-bit" and found.n_levels <= 3):
            # Its zeros are gone, or a scale is negative now: that is for a rule to say.
            return replace(found, form="ternary", n_levels=3)
        return before if found.form == "empty" else found

    def pass_by(self) -> None:
        """Take note of an observed step in which nothing was judged."""
        self._n_looked += 1
        self._n_since += 1

    def adopt(
        self,
        levels: Levels,
        weight: Tensor,
        latent: Tensor | None,
        module: nn.Module,
        *,
        call: int,
        trained: bool = False,
    ) -> bool:
        """Latch what was found; returns whether it is something new.

        Args:
            levels: What was found.
            weight: The weight that was looked at.
            latent: The latent one beside it, if there is one.
            module: The layer.
            call: Which of the products that fit was looked at.
            trained: Whether the weight itself is what an optimizer moves.
        """
        levels = _as_told(levels, module)
        if trained and self._doubt(levels):
            self._n_looked += 1
            return False
        before = self._what
        self._n_looked += 1
        self._n_since = 0
        self._stage = _stage(module)
        if levels.form == "empty" and self.levels is None and _is_collapsed(weight, latent):
            levels = Levels("ternary", "tensor", n_levels=3)
        if levels.form == "empty" and self.levels is None:
            self.levels, self.note = FULL, "all weights are 0, or one is not a number"
            self._n_looked = 0  # which says nothing: look again
            before, self._what = self._what, ("empty",)
            return before != self._what
        self.levels, self.call = levels, call
        said, own = _said(module), own_lambda(module)
        lam = None
        if levels.form == "full" and latent is not None:
            lam = stage_of(weight, latent)
        at_work = bool(said) and own != 1  # what has come to its end leads nowhere
        self.on_its_way = levels.form == "full" and (at_work or (lam or 0) > _LEAST_STAGE)
        self.note = _in_words(levels, lam, own, said)
        words = tuple(x for x in self._stage if isinstance(x, str))
        # Figures of the stage change at every step: they are in the table, and no news.
        self._what = (levels.form, levels.granularity, self.on_its_way, words)
        return before != self._what

    def _doubt(self, levels: Levels) -> bool:
        """Whether levels have to be seen twice.

        Weights that began at 0 are all ±lr after the first update of Adam, and have few levels by
        chance. Weights that are made ternary have them from the start, or again.
        """
        told = levels.form not in ("full", "empty")
        new = told and self.levels is not None and self.levels.form != levels.form
        seen = (levels.form, levels.bits) if new else None
        doubtful = new and seen != self._doubted
        self._doubted = seen if doubtful else None
        return doubtful


def _is_collapsed(weight: Tensor, latent: Tensor | None) -> bool:
    """Whether a quantizer made zeros of weights that are none: the end of a ternary layer."""
    if latent is None or bool(weight.any()):
        return False
    return bool(latent.isfinite().all()) and bool(latent.any())


def better(one: Levels, than: Levels) -> bool:
    """Whether levels say more than other ones that were found in the same forward pass."""
    return _RANKS[one.form] > _RANKS[than.form]


def _as_told(levels: Levels, module: nn.Module) -> Levels:
    """The levels, of more bits where the layer's quantizer says that they are just not all seen."""
    told = told_levels(module) or 0
    if levels.form not in ("ternary", "binary") or told <= _MOST_TERNARY:
        return levels
    return replace(levels, form="n-bit", n_levels=told, shifted=False)


def _in_words(levels: Levels, lam: float | None, own: float | None, said: str) -> str:
    if levels.form == "ternary" or levels.form == "empty":
        return str(levels)
    if levels.form == "full" and lam is not None and lam > _LEAST_STAGE:
        said = ", ".join(x for x in (f"λ = {lam:.2f}", said) if x)
        return f"on the way to ternary weights: {said}"
    if levels.form == "full" and own is not None and 0 < own < 1:
        return f"on the way from full precision: {said}"
    if levels.form == "full" and said:
        return f"full precision now: {said}"
    return f"{levels}: {said}" if said else str(levels)


def _stage(module: nn.Module) -> tuple[Any, ...]:
    """Plain values of the attributes that tell of a stage; of the module and of its parts."""
    found: list[Any] = []
    for part in (module, *module.children()):
        own = vars(part)
        found += [own[n] for n in _STAGES if isinstance(own.get(n), str | int | float)]
    return tuple(found)


def _said(module: nn.Module) -> str:
    """The stage as the module says it, such as `stage = soft, temperature = 1.2`."""
    found: dict[str, str] = {}
    for part in (module, *module.children()):
        own = vars(part) | part._buffers
        for name in _TELLING:
            value = own.get(name)
            if isinstance(value, Tensor):
                value = value.item() if value.numel() == 1 and value.device.type == "cpu" else None
            if isinstance(value, str):
                found.setdefault(name, value)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault(name, f"{value:.3g}")
    return ", ".join(f"{name} = {value}" for name, value in found.items())
