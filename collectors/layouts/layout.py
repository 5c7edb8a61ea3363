"""The axes of one layer's output: as its library tells, as a user names them, or found out."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikewatch.layers import own_type

from ..recognise import Found
from ..straight_through import makers_of
from ..surrogate import surrogate_nodes
from .inferred_axes import Folded, find_folded, infer_axes, time_inside, write_axes
from .inner_loops import has_loop, is_length, loops, steps_by_name, steps_held
from .leading_axes import LeadingAxes
from .mixed_steps import Flattened, find_mixed


_LEAST_RANK = 3  # of a sequence of batches of neurons


Unfold = Callable[[Tensor], Tensor]
_WITHOUT_A_GRAPH = (
    "its forward loops, perhaps over time, and was not called with gradients yet: which axis of "
    "{shape} would be that of time cannot be told, and it is not counted until then. To have it "
    "counted at once, name its axes: attach(layers={{name: 'TB*'}})"
)


class Layout:
    """Where time and batch are in what one layer returns; found out as soon as a graph tells."""

    def __init__(
        self,
        found: Found,
        tell: Callable[[str], None],
        module: Callable[[], nn.Module | None],
        widths: Collection[int],
        leading: LeadingAxes,
    ) -> None:
        """Take what was found, with the axes that a user named, and what else may tell them.

        Who is told what is not certain; the layer, if it is a module; how many outputs the
        model's layers with weights have, which are channels or neurons; and what is known of the
        leading axes of all its layers.
        """
        self._library = found.library
        self._is_derived = not found.sure  # by a user, from a library's class
        self._axes = found.axes
        self._by_hand = bool(found.axes)
        self._is_known = False  # as far as a graph tells
        self._folded: Folded | Flattened | None = None
        self._holds: set[str] = set()  # attributes of the layer that are its number of time steps
        self._seen: tuple[torch.Size, type] | None = None  # at the latest look
        self._tell = tell
        self._module = module
        self._widths = widths
        self._leading = leading

    def of(self, module: nn.Module | None, spikes: Tensor) -> tuple[str, Unfold | None] | None:
        """Axes, and what gives time and batch axes of their own where they share one.

        None where it cannot be told yet.
        """
        library = self._library
        if module is None or library.name == "user":
            return self._of_users(spikes)
        axes = library.axes(module, spikes)
        if library.unfold is not None:
            return axes, partial(library.unfold, module)
        return self._of_derived(axes, spikes) if self._is_derived else (axes, None)

    def _of_users(self, spikes: Tensor) -> tuple[str, Unfold | None] | None:
        if self._by_hand:
            return self._axes, None
        if spikes.requires_grad:
            self._is_known = True
            if self._axes in ("", "B*") and self._may_differ(spikes):
                self._look(spikes)
        elif not self._is_known and self._may_loop(spikes):
            self._tell(_WITHOUT_A_GRAPH.format(shape=[*spikes.shape]))
            return None
        if self._folded is None:
            return self._axes or "B*", None
        return self._unfolded(self._folded, spikes) or ("B*", None)

    def _may_loop(self, spikes: Tensor) -> bool:
        """Whether what was made without a graph may have time steps in it."""
        module = self._module()
        return len(spikes.shape) >= _LEAST_RANK and module is not None and has_loop(module)

    def _of_derived(self, axes: str, spikes: Tensor) -> tuple[str, Unfold | None]:
        """Of a class that a user derived from one whose axes the library knows.

        Its forward may loop over time where the library would not, or fold time into the batch.
        """
        if spikes.requires_grad and self._may_differ(spikes):
            self._look_beside(axes, spikes)
        if self._folded is not None and (unfolded := self._unfolded(self._folded, spikes)):
            return unfolded
        return (self._axes or axes if axes == "B*" else axes), None

    def _may_differ(self, spikes: Tensor) -> bool:
        """Whether there may be other time steps in an output than in that of the latest look.

        Of 8 samples and 4 time steps that are folded into one axis, and of 16 and 2, only the graph
        tells, or the layer; what is called for each time step is looked at where its shape changes.
        """
        seen, self._seen = self._seen, (spikes.shape, type(spikes.grad_fn))
        if seen != self._seen:
            return True
        return isinstance(self._folded, Folded) and self._held() != self._folded.n_steps

    def _unfolded(self, folded: Folded | Flattened, spikes: Tensor) -> tuple[str, Unfold] | None:
        """Axes of an output into which time was folded; None if so many steps are not in it."""
        if not spikes.requires_grad and isinstance(folded, Folded):
            held = self._held()  # perhaps others than in training
            folded = folded if held is None else replace(folded, n_steps=held)
        return (folded.axes, folded.unfold) if folded.fits(spikes) else None

    def _held(self) -> int | None:
        """The number of time steps that the layer holds, as graphs have shown it to be."""
        module = self._module() if self._holds else None
        held: dict[str, Any] = {} if module is None else vars(module)
        steps = [held[name] for name in self._holds if name in held]
        found = {int(n) for n in steps if is_length(n)}
        return found.pop() if len(found) == 1 else None

    def _fold(self, folded: Folded) -> None:
        if folded != self._folded and (module := self._module()) is not None:
            holds = {k for k, n in steps_by_name(module).items() if n == folded.n_steps}
            self._holds = (self._holds & holds) or holds
        self._folded = folded

    def _find_folded(self, spikes: Tensor, nodes: Sequence[Any]) -> Folded | None:
        before = self._folded if isinstance(self._folded, Folded) else None
        return find_folded(spikes, nodes, before)

    def _look_beside(self, axes: str, spikes: Tensor) -> None:
        nodes = surrogate_nodes(spikes) or makers_of(spikes)
        folded = self._find_folded(spikes, nodes)
        if folded is not None and folded.n_steps == len(spikes) > 1:
            self._seen = None
            return  # a batch of one, or slices of a sequence that were put together again
        if folded is not None:
            self._fold(folded)
        elif nodes and axes == "B*":
            self._axes = infer_axes(spikes, nodes, self._tell)

    def _look(self, spikes: Tensor) -> None:
        nodes = surrogate_nodes(spikes) or makers_of(spikes)
        folded = self._find_folded(spikes, nodes)
        if folded is not None:
            self._fold(folded)
            return
        self._folded = None
        axes = infer_axes(spikes, nodes, self._tell)
        if axes == "B*" and nodes:
            mixed = find_mixed(spikes, self._tell)
            if isinstance(mixed, Flattened):
                self._folded, mixed = mixed, mixed.axes
            axes = mixed or self._look_inside(spikes, nodes)
        self._axes = axes if nodes or axes != "B*" else ""

    def _look_inside(self, spikes: Tensor, nodes: Sequence[Any]) -> str:
        """Axes of what a function made that may itself have looped over time."""
        shape = spikes.shape
        function = getattr(nodes[0], "_forward_cls", None)  # none of a detach trick
        module = self._module()
        cls = None if module is None else own_type(module)
        if len(shape) < _LEAST_RANK:
            return "B*"
        if function is None or not loops(function, cls):
            return self._leading.axes(spikes, nodes, self._widths, self._tell)
        time = time_inside(spikes, nodes)
        if time is None:
            steps = set[int]() if module is None else steps_held(module) - {*self._widths}
            fits = [axis for axis, n in enumerate(shape) if n in steps]
            time = fits[0] if len(fits) == 1 else None
        if time is not None:
            return write_axes(time, len(shape))
        self._tell(
            f"{function.__name__} loops, perhaps over time: which axis of {list(shape)} would be "
            "that of time cannot be told. It is read as one time step of a batch, 'B*'; if it is "
            "more, name its axes: attach(layers={name: 'TB*'})"
        )
        return "B*"
