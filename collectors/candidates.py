"""Whether a layer of unknown make has shown that it makes spikes."""

from typing import Any, Literal

from torch import Tensor

from .levels import looks_like_spikes
from .library import first_tensor
from .quantized.operands import is_made_of_weights
from .surrogate import surrogate_nodes


Verdict = Literal["yes", "wait", "no"]
Evidence = Literal["class", "code", "threshold"]


class Candidate:
    """Judges one layer by its calls until it is sure.

    Known libraries say what their classes are; of others the values are looked at, and of those
    that were found by their code alone, the autograd graph: activations of a binary net, which
    have both signs and no silence, are no spikes. Of those that only have a threshold the output
    has to be spikes without doubt, and the input not to be.
    """

    def __init__(self, *, found_by: Evidence, claims: set[int]) -> None:
        self._found_by = found_by
        self._claims = claims
        self.sure = False
        self.why = ""
        """Why the verdict was "no"."""

    def judge(self, args: tuple[Any, ...], spikes: Tensor, nodes: list[Any]) -> Verdict:
        """Look at one call. Without a graph nothing can be said of code that was found."""
        by, inputs = self._found_by, [t for a in args if (t := first_tensor(a)) is not None]
        if by != "class":
            if not spikes.requires_grad:
                return "wait"
            if any(is_made_of_weights(t) for t in inputs):
                self.why = "it is called with a weight, so it quantizes that"
                return "no"
        if by == "code" and not self._own_nodes(inputs, nodes):
            self.why = "its output is not made by a spike function of its own"
            return "no"
        verdict = looks_like_spikes(spikes)
        if by == "threshold" and verdict is not False:
            if any(looks_like_spikes(t) for t in inputs):
                self.why = "it is called with spikes"
                return "no"
            if verdict is None:
                return "wait"
        if verdict is False:
            self.why = "its output takes many values"
            return "no"
        if by != "class" and verdict and _is_sign(spikes):
            self.why = "its output is ±1 and never 0"
            return "no"
        # Too few events to be sure: counted all the same, or a silent layer would go unseen.
        self.sure = verdict is True
        self._found_by = "class"
        return "yes"

    def _own_nodes(self, inputs: list[Tensor], nodes: list[Any]) -> list[Any]:
        made = [t for t in inputs if t.requires_grad]
        others = {id(n) for t in made for n in surrogate_nodes(t)} | self._claims
        own = [n for n in nodes if id(n) not in others]
        # Hooks of inner modules run first: what they claim is not their parent's.
        self._claims.update(id(n) for n in own)
        return own


def _is_sign(x: Tensor) -> bool:
    return bool(x.all()) and bool((x > 0).any()) and bool((x < 0).any())
