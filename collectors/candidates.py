"""Whether a layer of unknown make has shown that it makes spikes."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple
from weakref import WeakSet

import torch
from torch import Tensor

from .handing_on import hands_on
from .hooks import why_unreadable
from .library import first_tensor
from .quantized.operands import is_made_of_weights
from .spike_values import looks_like_spikes
from .straight_through import is_straight_through
from .surrogate import surrogate_nodes


Verdict = Literal["yes", "wait", "no"]
Evidence = Literal["class", "code", "threshold", "trick", "library"]

_SILENT = "hardly fired, or never"


class Made(NamedTuple):
    """What one call of a function has made within a module's forward.

    Attributes:
        n_events: How many of the spikes are events, 0-d.
        shape: Of the spikes.
        place: Where in the code the function was called.
        source: The layer of the module whose weights are behind it; "" if none is.
    """

    n_events: Tensor
    shape: tuple[int, ...]
    place: Hashable
    source: str


class Candidate:
    """Judges one layer by its calls until it is sure.

    Known libraries say what their classes are; of others the values are looked at, and of those
    that were found by their code alone, the autograd graph: activations of a binary net, which
    have both signs and no silence, are no spikes, nor are times of spikes. Of those that only have
    a threshold, or a state, the output has to be spikes without doubt, and the input not to be,
    unless the layer has weights to multiply it with; where hardly any come, another layer of the
    class that makes spikes is proof enough, or a graph which shows that the silence is made like
    spikes are. Of a library's neuron within another one nothing has to be found out, but what it
    makes is not made by the outer one. Nodes are told apart by themselves and held weakly: the
    number of one that is freed is soon another's.
    """

    def __init__(
        self,
        *,
        found_by: Evidence,
        claims: WeakSet[Any],
        cls: type,
        spiking: set[type],
        has_weights: bool = False,
    ) -> None:
        """Take what speaks for the layer, what others claim, its class, and those proven."""
        self._has_weights = has_weights
        self._found_by = found_by
        self._by_threshold = found_by in ("threshold", "trick")
        self._by_trick = found_by == "trick"
        self._by_code = found_by == "code"
        self._claims = claims
        self._cls = cls
        self._spiking = spiking
        self.sure = False
        self.why = ""
        """Why the latest verdict was "no" or "wait"; of a silent layer, why it was "yes"."""
        self.is_silent = False
        """Whether nothing but spikes was missing in a verdict, "wait"."""

    def judge(
        self, args: tuple[Any, ...], spikes: Tensor, nodes: list[Any], made: Mapping[Any, Made]
    ) -> Verdict:
        """Look at one call. Without a graph nothing can be said of code that was found.

        Args:
            args: What the layer was called with.
            spikes: What it returned.
            nodes: The surrogate's nodes behind that.
            made: What functions have made within the call, as far as it was heard, by their nodes.
        """
        self.why = ""
        by, inputs = self._found_by, [t for a in args if (t := first_tensor(a)) is not None]
        if by == "class" and nodes and self._claims.issuperset(nodes):
            self.why = "a layer within it makes its spikes"
            return "no"
        own = self._own_nodes(inputs, nodes)
        if by == "library":
            self.sure = bool(nodes) and looks_like_spikes(spikes) is not None
            return "yes"
        if by != "class":
            if not spikes.requires_grad:
                self.why = _SILENT if self.is_silent else "was not part of an autograd graph"
                return "wait"
            if any(is_made_of_weights(t) for t in inputs):
                self.why = "it is called with a weight, so it quantizes that"
                return "no"
        if by != "class" and spikes.dim() == 0:
            self.why = "its output is a single number, as a loss is"
            return "no"
        if self._by_code and any(hands_on(n, t, spikes) for n in own for t in inputs):
            self.why = "it hands on what it is called with"
            return "no"
        if by == "code" and not own:
            self.why = "its output is not made by a spike function of its own"
            return "no"
        if not _is_what_was_made(spikes, own, made):
            self.why = "its output is not the spikes themselves (their sum over time, a dropout)"
            return "no"
        if _is_network(own, made):
            self.why = "it is made of several layers, or returns some of its spikes only"
            return "no"
        verdict = looks_like_spikes(spikes, may_all_fire=not self._by_code)
        if self._by_threshold and verdict is not False:
            if not self._has_weights and any(_are_spikes(t) for t in inputs):
                self.why = "it is called with spikes"
                return "no"
            if self._by_trick and (nodes or not is_straight_through(spikes, inputs)):
                self.why = "its output is not made by a detach trick of its own"
                return "no"
            if verdict is None and by != "class" and not self._may_be_silent(spikes, inputs):
                return "wait"
        if verdict is False:
            never = ", and is never 0" if self._by_code and bool(spikes.all()) else ""
            self.why = f"its output takes many values{never}"
            return "no"
        if by != "class" and verdict and _is_sign(spikes):
            self.why = "its output is ±1 and never 0"
            return "no"
        # Too few events to be sure: counted all the same, or a silent layer would go unseen.
        self.sure = verdict is True
        self._found_by = "class"
        if self.sure and self._by_threshold:
            self._spiking.add(self._cls)
        return "yes"

    def _may_be_silent(self, spikes: Tensor, inputs: list[Tensor]) -> bool:
        """Whether what hardly fires is a neuron all the same, and no gate that nothing passes."""
        has = f"has a {'state' if self._by_trick else 'threshold'}; hardly fired, but"
        if self._cls in self._spiking:
            self.why = f"{has} another layer of its class makes spikes"
        elif is_straight_through(spikes, inputs):
            self.why = f"{has} is made like spikes, by a detach trick"
        else:
            self.why, self.is_silent = _SILENT, True
            return False
        return True

    def _own_nodes(self, inputs: list[Tensor], nodes: list[Any]) -> list[Any]:
        others = {n for t in inputs if t.requires_grad for n in surrogate_nodes(t)}
        own = [n for n in nodes if n not in others and n not in self._claims]
        # Hooks of inner modules run first: what they claim is not their parent's.
        self._claims.update(own)
        return own


class Named:
    """Finds the spikes in what a layer returns that a user has named: they may not come first."""

    def __init__(self) -> None:
        self._place = 0
        self._sure = False

    def spikes_first(self, output: Any, tell: Callable[[str], None]) -> Any:
        """What was returned, with the spikes before all else; `tell` is told if there are none.

        The first tensor is taken for them unless it takes many values, and another one does not.
        """
        if not isinstance(output, tuple | list) or len(output) < 2:
            return output
        if not self._sure:
            self._look(output, tell)
        place = self._place
        if place == 0 or place >= len(output):
            return output
        return (output[place], *output[:place], *output[place + 1 :])

    def _look(self, output: Sequence[Any], tell: Callable[[str], None]) -> None:
        looks = {
            i: looks_like_spikes(x, may_all_fire=True)
            for i, x in enumerate(output)
            if _has_values(x)
        }
        first = looks.get(0, False if not isinstance(output[0], Tensor) else None)
        able = [i for i, look in looks.items() if look is not False]
        if first is not False:
            self._place, self._sure = 0, first is True
        elif able:
            self._place = next((i for i in able if looks[i]), able[0])
            self._sure = looks[self._place] is True
        elif looks:
            self._sure = True
            tell("nothing that it returns looks like spikes; the first tensor is counted")


def _has_values(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and not why_unreadable(x)


def _are_spikes(x: Tensor) -> bool:
    """Whether an input is spikes. What silent layers send on is a bias: few values, and never 0."""
    if not looks_like_spikes(x, may_all_fire=True):
        return False
    return not bool(x.all()) or bool((x == x.flatten()[0]).all())


def _is_sign(x: Tensor) -> bool:
    return bool(x.all()) and bool((x > 0).any()) and bool((x < 0).any())


def _is_what_was_made(spikes: Tensor, nodes: list[Any], made: Mapping[Any, Made]) -> bool:
    """Whether a layer's output has the events of its functions, and no fewer or other ones.

    The two halves of a ternary spike are as large as the output each.
    """
    parts = [made[node] for node in nodes if node in made]
    if not parts or len(parts) < len(nodes):
        return True  # not all of it was heard
    size = sum(math.prod(part.shape) for part in parts)
    n_parts, rest = divmod(size, max(1, spikes.numel()))
    if rest or not 1 <= n_parts <= 2:
        return False
    if not spikes.detach().isfinite().all():
        return True  # the events cannot be counted any more, and that has to be told of
    return bool(torch.stack([part.n_events for part in parts]).sum() == spikes.count_nonzero())


def _is_network(nodes: list[Any], made: Mapping[Any, Made]) -> bool:
    """Whether functions have made spikes within a module that are not in its output.

    They are another layer's where they have another shape, or other weights behind them; and time
    steps of a sum where some of those of one place in the code are in the output. Calls elsewhere
    that are like those in the output are the neuron's own, such as one more for the reset.
    """
    own = [made[node] for node in nodes if node in made]
    if not own or len(own) < len(nodes):
        return False  # not all of it was heard
    others = [call for node, call in made.items() if node not in nodes]
    sources, shapes = {call.source for call in own}, {call.shape[1:] for call in own}
    places = {call.place for call in own}
    return any(
        call.place in places
        or call.shape[1:] not in shapes
        or (call.source and call.source not in sources)
        for call in others
    )
