"""The axes of one layer's output: as its library tells, as a user names them, or found out."""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from spikewatch.layers import own_type

from .inferred_axes import Folded, find_folded, infer_axes, time_inside, write_axes
from .inner_loops import loops, steps_held
from .mixed_steps import Flattened, find_mixed
from .recognise import Found
from .surrogate import surrogate_nodes


_LEAST_RANK = 3  # of a sequence of batches of neurons


Unfold = Callable[[Tensor], Tensor]


class Layout:
    """Where time and batch are in what one layer returns; found out as soon as a graph tells."""

    def __init__(
        self,
        found: Found,
        tell: Callable[[str], None],
        module: Callable[[], nn.Module | None],
        widths: Collection[int],
    ) -> None:
        """Take what was found, with the axes that a user named, and what else may tell them.

        Who is told what is not certain; the layer, if it is a module; and how many outputs the
        model's layers with weights have, which are channels or neurons.
        """
        self._library = found.library
        self._is_derived = not found.sure  # by a user, from a library's class
        self._axes = found.axes
        self._folded: Folded | Flattened | None = None
        self._looked = False  # at a neuron of which a library tells the axes
        self._tell = tell
        self._module = module
        self._widths = widths

    def of(self, module: nn.Module | None, spikes: Tensor) -> tuple[str, Unfold | None]:
        """Axes, and what gives time and batch axes of their own where they share one."""
        library = self._library
        if module is None or library.name == "user":
            return self._of_users(spikes)
        axes = library.axes(module, spikes)
        if library.unfold is not None:
            return axes, partial(library.unfold, module)
        return self._of_derived(axes, spikes) if self._is_derived else (axes, None)

    def _of_users(self, spikes: Tensor) -> tuple[str, Unfold | None]:
        if not self._axes and spikes.requires_grad:
            self._look(spikes)
        folded = self._folded
        if folded is None:
            return self._axes or "B*", None
        return (folded.axes, folded.unfold) if folded.fits(spikes) else ("B*", None)

    def _of_derived(self, axes: str, spikes: Tensor) -> tuple[str, Unfold | None]:
        """Of a class that a user derived from one whose axes the library knows.

        Its forward may loop over time where the library would not, or fold time into the batch.
        """
        if not self._looked and spikes.requires_grad:
            self._look_beside(axes, spikes)
        folded = self._folded
        if folded is not None and folded.fits(spikes):
            return folded.axes, folded.unfold
        return (self._axes or axes if axes == "B*" else axes), None

    def _look_beside(self, axes: str, spikes: Tensor) -> None:
        nodes = surrogate_nodes(spikes)
        folded = find_folded(spikes, nodes)
        if folded is not None and folded.n_steps == len(spikes):
            return  # a batch of one, or slices of a sequence that were put together again
        self._looked, self._folded = True, folded
        if folded is None and nodes and axes == "B*":
            self._axes = infer_axes(spikes, nodes, self._tell)

    def _look(self, spikes: Tensor) -> None:
        nodes = surrogate_nodes(spikes)
        self._folded = find_folded(spikes, nodes)
        if self._folded is not None:
            self._axes = self._folded.axes
            return
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
        function = nodes[0]._forward_cls
        module = self._module()
        cls = None if module is None else own_type(module)
        if len(shape) < _LEAST_RANK or not loops(function, cls):
            return "B*"
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
