"""Whether a layer of unknown make has shown that it makes spikes."""

from collections.abc import Mapping
from typing import Any, Literal
from weakref import WeakSet

import torch
from torch import Tensor

from .levels import looks_like_spikes
from .library import first_tensor
from .surrogate import surrogate_nodes


Verdict = Literal["yes", "wait", "no"]


# What a node has made: the size of the spikes, and how many of them are events.
Events = tuple[int, Tensor]


class Candidate:
    """Judges one layer by its calls until it is sure.

    Known libraries say what their classes are; of others the values are looked at, and of those
    that were found by their code alone, the autograd graph. Nodes are told apart by themselves and
    held weakly: the number of one that is freed is soon another's.
    """

    def __init__(self, *, found_by_code: bool, claims: WeakSet[Any]) -> None:
        self._by_code = found_by_code
        self._claims = claims
        self.sure = False
        self.why = ""
        """Why the verdict was "no"."""

    def judge(
        self, args: tuple[Any, ...], spikes: Tensor, nodes: list[Any], made: Mapping[Any, Events]
    ) -> Verdict:
        """Look at one call. Without a graph nothing can be said of code that was found.

        Args:
            args: What the layer was called with.
            spikes: What it returned.
            nodes: The surrogate's nodes behind that.
            made: What functions have made within the call, as far as it was heard, by their nodes.
        """
        own = self._own_nodes(args, nodes)
        if self._by_code:
            if not spikes.requires_grad:
                return "wait"
            if not own:
                self.why = "its output is not made by a spike function of its own"
                return "no"
        if not _is_what_was_made(spikes, own, made):
            self.why = "its output is not the spikes themselves (their sum over time, a dropout)"
            return "no"
        verdict = looks_like_spikes(spikes)
        if verdict is False:
            self.why = "its output takes many values"
            return "no"
        # Too few events to be sure: counted all the same, or a silent layer would go unseen.
        self.sure = verdict is True
        self._by_code = False
        return "yes"

    def _own_nodes(self, args: tuple[Any, ...], nodes: list[Any]) -> list[Any]:
        inputs = [t for a in args if (t := first_tensor(a)) is not None and t.requires_grad]
        others = {n for t in inputs for n in surrogate_nodes(t)}
        own = [n for n in nodes if n not in others and n not in self._claims]
        # Hooks of inner modules run first: what they claim is not their parent's.
        self._claims.update(own)
        return own


def _is_what_was_made(spikes: Tensor, nodes: list[Any], made: Mapping[Any, Events]) -> bool:
    """Whether a layer's output has the events of its functions, and no fewer or other ones.

    The two halves of a ternary spike are as large as the output each.
    """
    parts = [made[node] for node in nodes if node in made]
    if not parts or len(parts) < len(nodes):
        return True  # not all of it was heard
    n_parts, rest = divmod(sum(size for size, _ in parts), max(1, spikes.numel()))
    events = torch.stack([n for _, n in parts]).sum()
    return rest == 0 and 1 <= n_parts <= 2 and bool(events == spikes.count_nonzero())
