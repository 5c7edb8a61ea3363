"""What has to be known of a library's spiking layers. One instance in each file of `libraries/`.

A third party adds a library by an entry point in the group `spikewatch.libraries` that names a
`Library`. Nothing is imported to recognise a layer: classes are known by their qualified names
along the method resolution order.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from torch import Tensor, nn

from spikewatch.errors import AttachError


_NAMED = "The entry point of the group spikewatch.libraries"
Number = Tensor | float
Reset = Literal["subtract", "zero", "none"]
# What a layer may say of a call: it is the first time step of a sample, or not; it does not tell;
# or its state is at rest, which is so until something has reached the layer.
Start = bool | Literal["at rest"] | None
Saved = Literal["u-theta", "u", "other"]


@dataclass(frozen=True)
class Dynamics:
    """Parameters of a neuron as they act now; None where the neuron has none, or hides it.

    Attributes:
        threshold: θ at which the membrane potential makes a spike, in units of the potential.
        decay: Factor by which one time step multiplies the membrane potential, β = exp(−Δt/τ) or
            1 − 1/τ; healthy within (0, 1).
        decay_guessed: Whether it is taken for that by its name alone: beyond [0, 1] it is none.
        reset: What a spike does to the potential: θ is subtracted, it is set to a value, nothing.
        reset_to: v_reset, the potential that a spike sets the neuron to, or takes it down to from
            θ; None where it is unknown, or there is none.
        surrogate: Name of the surrogate gradient, as the library writes it.
        learnable: Trainable parameters that belong to the neuron itself, by attribute name.
        unknown: What the user is to be told of numbers that the neuron has, and that do not show.
    """

    threshold: Number | None = None
    decay: Number | None = None
    decay_guessed: bool = False
    reset: Reset | None = None
    reset_to: Number | None = None
    surrogate: str = ""
    learnable: Mapping[str, nn.Parameter] = field(default_factory=dict)
    unknown: str = ""


@dataclass(frozen=True)
class Membrane:
    """The membrane potential of one forward call.

    Attributes:
        potential: u, of the shape of the spikes, or of one time step of them.
        pre_reset: Whether u is what was compared with the threshold, before the reset.
    """

    potential: Tensor
    pre_reset: bool


def _never_replaces(module: nn.Module, args: Any, kwargs: Any) -> bool | None:  # noqa: ARG001
    return False


@dataclass(frozen=True)
class States:
    """Where the states of a neuron are that is called for each time step.

    Attributes:
        before: Those that a call begins with, the membrane potential first.
        after: Those that it leaves behind.
        replaces: Whether a call can but replace its state, whose graph is freed; None: unknown.
    """

    before: Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any]], list[Any]]
    after: Callable[[nn.Module, Any], list[Any]]
    replaces: Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any]], bool | None] = (
        _never_replaces
    )


def first_tensor(output: Any) -> Tensor | None:
    """The spikes in what a neuron returns: the tensor itself, or a tuple's first element."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def step_axes(module: nn.Module, spikes: Tensor) -> str:  # noqa: ARG001
    """A neuron that is called once for each time step."""
    return "B*"


def unknown_start(
    module: nn.Module,  # noqa: ARG001
    args: tuple[Any, ...],  # noqa: ARG001
    kwargs: Mapping[str, Any],  # noqa: ARG001
) -> Start:
    """The layer does not tell: the first call within a forward pass of the model is a start."""
    return None


def nothing_of(module: nn.Module, names: list[str]) -> frozenset[str]:  # noqa: ARG001
    """A module calls whatever it holds."""
    return frozenset()


def never(module: nn.Module) -> bool:  # noqa: ARG001
    """Spikes are of one size, of a few, or of a number's."""
    return False


def no_dynamics(module: nn.Module) -> Dynamics:  # noqa: ARG001
    """Nothing is known of the neuron's parameters."""
    return Dynamics()


def no_membrane(module: nn.Module, output: Any) -> Membrane | None:  # noqa: ARG001
    """The potential shows only in the autograd graph, or nowhere."""
    return None


def saved_in(*packages: str, what: Saved) -> Callable[[str], Saved]:
    """Says what the functions of these packages save; of users' own surrogates nothing is known."""
    return lambda name: what if name.startswith(packages) else "other"


@dataclass(frozen=True)
class Library:
    """How the spiking layers of one library are recognised and read.

    Every function gets the module; none may change it, keep it, or raise for a class that
    `is_spiking` accepts.

    Attributes:
        name: Name of the library, as its users write it.
        is_spiking: Whether a module is one of its spiking layers, from the qualified names of the
            classes along its MRO; None where the library does not know the class.
        uncalled: Which parts of a module its forward never calls, such as a neuron of which it uses
            the inner parts alone: by attribute. It is asked of every module of a model, spiking or
            not, with the qualified names of its classes.
        spikes: Takes the spikes out of what the layer's forward returns.
        axes: Axes of that tensor, written as in `spikewatch.collectors.layouts.axes`.
        unfold: Makes a view of it in which time and batch have axes of their own, for layers that
            fold them into one, or that give one time step an axis; `axes` then tells of the view.
        starts_sample: Called before a forward: whether this call is the first time step of a new
            sample, or a sequence that begins with one; None where the layer does not tell; `"at
            rest"` where its state is, and that is all that shows.
        states: Where the states are, of neurons of which samples may begin at any potential.
        dynamics: Threshold, decay, reset, surrogate and trainable parameters now.
        membrane: The membrane potential after a call. It is asked only where the autograd graph
            does not show the potential before the reset.
        saved: What a node of its surrogate saves first: u − θ, the potential u itself, or
            something else; or a function that tells it, from the qualified name of the node's
            `autograd.Function`. Checked against the spikes before it is used, but for what is
            stated of a node on another device than the CPU.
        amplitude: Attribute with the amplitude of a spike, if the layer has one.
        spike_times: Whether the tensor holds times of spikes (∞: never fired), not spikes.
        several_a_step: Whether a neuron may fire several times in one time step; its spike is then
            how often it does.
        is_graded: Whether a spike of the layer stands for a value, and may have any size and sign.
        gated_cells: Qualified names of its cells whose surrogates make gates: one that stays open
            is no saturated neuron.
        note: What the user should know of how such layers are watched; `attach()` prints it.
    """

    name: str
    is_spiking: Callable[[nn.Module, list[str]], bool | None]
    uncalled: Callable[[nn.Module, list[str]], frozenset[str]] = nothing_of
    spikes: Callable[[Any], Tensor | None] = first_tensor
    axes: Callable[[nn.Module, Tensor], str] = step_axes
    unfold: Callable[[nn.Module, Tensor], Tensor] | None = None
    starts_sample: Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any]], Start] = unknown_start
    states: States | None = None
    dynamics: Callable[[nn.Module], Dynamics] = no_dynamics
    membrane: Callable[[nn.Module, Any], Membrane | None] = no_membrane
    saved: Saved | Callable[[str], Saved] = "u-theta"
    amplitude: str | None = None
    spike_times: bool = False
    several_a_step: bool = False
    is_graded: Callable[[nn.Module], bool] = never
    gated_cells: frozenset[str] = frozenset()
    note: str = ""

    def saved_by(self, function: type) -> Saved:
        """What nodes of this `autograd.Function` save first."""
        if callable(self.saved):
            return self.saved(f"{function.__module__}.{function.__qualname__}")
        return self.saved


def qualified_names(cls: type) -> list[str]:
    """Qualified names of a class and its bases, nearest first."""
    return [f"{c.__module__}.{c.__qualname__}" for c in cls.__mro__]


def load_libraries() -> list[Library]:
    """The libraries known here, third parties' first: they may know a class of ours better."""
    found = entry_points(group="spikewatch.libraries")
    return [_load(e) for e in sorted(found, key=lambda e: e.value.startswith("spikewatch."))]


def _load(entry: EntryPoint) -> Library:
    try:
        library = entry.load()
    except Exception as error:
        what = f"{_NAMED} {entry.name!r} ({entry.value}) did not load"
        raise AttachError(f"{what}. {type(error).__name__}: {error}") from error
    if not isinstance(library, Library):
        raise AttachError(
            f"{_NAMED} {entry.name!r} ({entry.value}) is a {type(library).__name__}. It must name "
            "an instance of spikewatch.collectors.library.Library."
        )
    return library
