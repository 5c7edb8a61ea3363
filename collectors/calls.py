"""What an instrument sees: a forward call, the layer that it reads, and which time step it is."""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter as time_now
from typing import Any, NamedTuple

from torch import Tensor, nn

from .arrays import Array
from .hooks import Hook
from .layouts.axes import Axes
from .library import Library


# Multiples of it cover [0, 1) evenly, however many there are.
GOLDEN_RATIO = 0.6180339887498949
# Readings that differ from one time step to the next are taken of so many of them.
SPREAD_STEPS = 4


def _no_nodes() -> list[Any]:
    return []


class Place(NamedTuple):
    """Where in the code a layer was called.

    Attributes:
        code: The chain of calls.
        keeps_state: Whether the layer does: else it is a function rather than a neuron.
    """

    code: Hashable
    keeps_state: bool


@dataclass(slots=True)
class Call:
    """A forward call in an observed step: what the layer made, and how it is to be read.

    The observer says what was made; the layer's reader numbers the calls of a step, and chooses.

    Attributes:
        spikes: What the layer returned, with its graph; without one yet where `maker` is given.
            Never kept, never changed.
        values: The same, detached; unfolded, where the layer folds time and batch into one axis; 1
            where a neuron fired and else 0, where the layer returns times of spikes.
        axes: Where time and batch are in the values.
        time: Time step within the sample, of a tensor with an axis of time the first of its own;
            None if unknown, and, of calls for each time step, where no dear readings are due.
        starts_sample: Whether a sample begins here; None where the layer does not tell, until the
            reader has found out.
        fed_by_itself: Whether a sequence comes from an earlier one of the layer, in the same pass.
        place: Where in the code the layer was called; None where not asked for, or not known.
        elsewhere: Whether that is the place of another neuron than that of the call before.
        again: Whether this is activation checkpointing's second pass over a call: events were
            counted in the first one, gradients flow through this one.
        detailed: Whether the step is one that has the dear readings (σ′, membrane, first spikes).
        probed: Whether this call is among those that σ′ is read of.
        spread: Whether this call is among those, spread over the sequence, that the membrane
            potential is read of.
        pick: For a tensor with an axis of time: which time step they read, as a share of the
            sequence in [0, 1); None for all of them.
        nodes: The surrogate's nodes behind the spikes; [] where not read, or without a graph.
        find_nodes: Finds them.
        maker: The node that makes the spikes, where they are seen from within its own forward: they
            have no graph of their own yet.
        module: The layer; None for a tap, or where the layer is a function.
        inputs: What the layer was called with, by position.
        output: All that the layer returned.
        unfold: What made the values' shape of the spikes'.
    """

    spikes: Tensor
    values: Tensor
    axes: Axes
    time: int | None = None
    starts_sample: bool | None = None
    fed_by_itself: bool = False
    place: Place | None = None
    elsewhere: bool = False
    again: bool = False
    detailed: bool = False
    probed: bool = False
    spread: bool = False
    pick: float | None = None
    nodes: list[Any] = field(default_factory=list)
    find_nodes: Callable[[], list[Any]] = _no_nodes
    maker: Any = None
    module: nn.Module | None = None
    inputs: tuple[Any, ...] = ()
    output: Any = None
    unfold: Callable[[Tensor], Tensor] | None = None

    @property
    def neuron_shape(self) -> tuple[int, ...]:
        """Shape of the neurons: that of the spikes without time and batch."""
        return self.axes.neurons(self.values.shape)

    @property
    def has_graph(self) -> bool:
        """Whether a backward pass may come by."""
        return self.maker is not None or self.spikes.requires_grad

    def on_gradient(self, hook: Hook) -> Any:
        """Have a hook called with ∂L/∂s when the backward pass reaches the spikes.

        A hook on the tensor, never a full backward hook of the module: that one breaks programs
        which change the spikes in place.

        Returns:
            A handle, where the hook has to be taken off again: a leaf outlives its step.
        """
        if self.maker is not None:
            self.maker.register_prehook(partial(_first_of, hook))
            return None
        handle = self.spikes.register_hook(hook)
        return handle if self.spikes.grad_fn is None else None

    @property
    def n_steps(self) -> int:
        """Time steps in this call."""
        return 1 if self.axes.time is None else self.values.shape[self.axes.time]


def _first_of(hook: Hook, gradients: tuple[Tensor | None, ...]) -> None:
    if gradients[0] is not None:
        hook(gradients[0])


def _raise(error: Exception) -> None:
    raise error


def _by_nobody(parameter: Tensor) -> bool:  # noqa: ARG001
    return False


@dataclass
class Subject:
    """What the instruments of one layer share.

    Attributes:
        library: How the layer's library is read.
        module: The layer, as long as it lives; None for a tap.
        tell: Stores, once, what the user should know of the layer.
        spent: Takes note of seconds that went by outside of the layer's forward hook.
        fault: Takes note of an error there.
        dead: Whether each neuron is dead as of the latest flush, bool [*neurons]; None without
            evidence.
        step: Events of each neuron in the step that is flushed, and observations of each.
        widths: How many outputs the model's layers with weights have.
        loss_scale: What gradients of the step that is flushed are to be divided by; None: nothing.
        misses_turns: Whether some optimizer takes turns with others, and none of its steps was
            observed: that no gradient comes says nothing then.
        optimizes: Whether an optimizer of the model holds a parameter.
        is_gate: Whether what the layer makes are the gates of a cell.
        is_open: Whether the samples that run may go on after the step that is flushed.
    """

    library: Library
    module: Callable[[], nn.Module | None]
    tell: Callable[[str], None]
    spent: Callable[[float], None]
    dead: Array | None = None
    step: tuple[Array, int] | None = None
    fault: Callable[[Exception], None] = _raise
    widths: Collection[int] = ()
    loss_scale: Tensor | float | None = None
    misses_turns: bool = False
    optimizes: Callable[[Tensor], bool] = _by_nobody
    is_gate: bool = False
    is_open: bool = False

    def channel_axis(self, shape: Sequence[int]) -> int | None:
        """Which axis of neurons of that shape is that of channels.

        All places of an image share the weights of a channel, as all tokens of a sequence do. Of
        two axes, tokens and channels, that of channels is as long as a layer has outputs.
        """
        if len(shape) == 2:
            wide = [axis for axis, n in enumerate(shape) if n in self.widths]
            return wide[0] if len(wide) == 1 else None
        return 0 if len(shape) > 2 else None

    def in_backward(self, body: Callable[..., None]) -> Hook:
        """A hook for a tensor or a node of the autograd graph: timed, and never raising."""

        def run(*args: Any) -> None:
            began = time_now()
            try:
                body(*args)
            except Exception as error:  # noqa: BLE001 - contract 1: never raise into training
                self.fault(error)
            self.spent(time_now() - began)

        return Hook(run)


class TimeSteps:
    """Tells which time step of its sample each call of a layer is, in a step that is observed.

    Between such steps calls are not numbered. A sample that goes on from one step to the next, as
    in truncated backpropagation through time, is at an unknown time step then.
    """

    def __init__(self) -> None:
        self._time: int | None = None
        self._forward = -1
        self.longest = 0
        """Most calls that a sample took in this step; of one that goes on, those in it."""

    def is_first(self, forward: int) -> bool:
        """Whether the call that comes is the first one in this forward pass of the model."""
        return forward != self._forward

    def next(self, starts: bool | None, *, forward: int) -> tuple[int | None, bool]:
        """Number one call.

        Args:
            starts: Whether the layer says that a sample begins; None where it does not tell.
            forward: Number of the model's forward pass; the first call within one starts a
                sample, where the layer does not tell. 0: the model itself is never called.

        Returns:
            The time step, None if it is unknown, and whether a sample starts.
        """
        if starts is None:
            starts = self.is_first(forward)
            known = forward > 0
        else:
            known = self._time is not None or starts
        self._forward = forward
        if not known:
            self._time = None
            self.longest += 1
            return None, False
        self._time = 0 if starts or self._time is None else self._time + 1
        self.longest = max(self.longest, self._time + 1)
        return self._time, starts

    def end_step(self) -> int:
        """Most calls that a sample took in the step that ends; numbering begins anew."""
        longest, self.longest = self.longest, 0
        self._time = None
        return longest


class Parts:
    """Tells at which time step of its sample each sequence begins that a layer is given in a step.

    A long one may be given in parts, with the state carried on. Whatever the first one in a step
    says, it is taken for a whole: a layer that is never reset says forever that a sample goes on.
    """

    def __init__(self) -> None:
        self._length = 0  # of the sample that runs, so far
        self._seen = False  # a part that goes on, ever

    def number(self, call: Call) -> None:
        """Number one call; where samples have parts, only those calls that tell of themselves."""
        goes_on = call.starts_sample is False and self._length > 0 and not call.again
        call.starts_sample = not goes_on
        if goes_on:
            self._seen, call.time = True, self._length
        else:
            call.time = None if self._seen and (call.again or not call.detailed) else 0
        if call.time is not None and not call.again:
            self._length = call.time + call.n_steps

    def begin(self, call: Call) -> None:
        """A call was no part of the sample before: it is one at a further place of the model."""
        call.starts_sample, call.time, self._length = True, 0, call.n_steps

    def end_step(self) -> None:
        """What comes next is a whole."""
        self._length = 0


class Turn:
    """Chooses the time step that the dear readings are taken of: another one each time.

    The first observed step is read at every time step, since how many there are is not known. Later
    ones are read at one, in the order of the golden ratio, which covers a sequence evenly however
    long it is, and draws no random number.
    """

    def __init__(self) -> None:
        self._n_turns = 0
        self._n_calls = 1

    @property
    def pick(self) -> float | None:
        """Share of the sequence, in [0, 1), at which to read; None: read everywhere."""
        return None if self._n_turns == 0 else self._n_turns * GOLDEN_RATIO % 1.0

    def takes(self, time: int) -> bool:
        """Whether the call at this time step is to be read."""
        pick = self.pick
        return pick is None or time == int(pick * self._n_calls)

    def spreads(self, time: int) -> bool:
        """Whether the call at this time step is among some that are spread over the sequence."""
        width = -(-self._n_calls // SPREAD_STEPS)
        return self._n_turns == 0 or time % width == int((self.pick or 0.0) * width)

    def end(self, n_calls: int) -> None:
        """A step was read in which a sample took `n_calls` calls."""
        self._n_turns += 1
        self._n_calls = max(1, n_calls)
