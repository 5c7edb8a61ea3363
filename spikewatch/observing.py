"""The seam between a watch and what it watches: what a collector offers, what it is given.

A *collector* is a function, found through the entry-point group `spikewatch.collectors`, that looks
at a model and returns an `Observer` for each layer it knows how to watch. An observer counts on the
device while training runs and hands its counters over when an observed step ends.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from .layers import Layer
from .root_pass import RootPass


if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


@dataclass(frozen=True)
class Hints:
    """What the user tells of quantized weights that cannot be seen.

    Attributes:
        quantized: By the name of a layer, a function that is given the layer and returns its
            quantized weight.
        pairs: Names of two layers whose weights add up to one ternary weight.
        optimizers: Those that hold latent weights which the model does not have.
    """

    quantized: "Mapping[str, Callable[[nn.Module], Tensor]]" = field(default_factory=dict)
    pairs: Sequence[tuple[str, str]] = ()
    optimizers: "Sequence[Optimizer]" = ()


@dataclass
class Histogram:
    """Counts over fixed edges; adds up over windows and ranks.

    Attributes:
        kind: `amplitude`, `alpha` or `latent_weight`.
        edges: k + 1 increasing edges.
        counts: k counts, `int64` tensor; then what lies below and above the edges.
    """

    kind: str
    edges: Sequence[float]
    counts: "Tensor"
    below: "Tensor | int" = 0
    above: "Tensor | int" = 0


@dataclass(frozen=True)
class OnHost:
    """Readings that become counters once they have reached the host.

    A step ends with many small sums. Each costs microseconds of the training thread as an operation
    on a tensor, and next to nothing as Python floats in the writer thread.

    Attributes:
        readings: Vector on the device; numbers, where they are on the host already.
        fold: Makes the counters of it, given as floats. Runs in the writer thread: it must not
            touch what changes after the flush.
    """

    readings: "Tensor | list[float]"
    fold: "Callable[[list[float]], Mapping[str, float | int | None]]"


# 0-d tensors on the layer's device, plain numbers, bytes or a `uint8` vector for a bitmap; or,
# under a tuple of the names that they give, a vector with one entry each, or readings to be folded.
Counters = dict[str | tuple[str, ...], "Tensor | OnHost | float | int | bytes | None"]


@dataclass
class Counts:
    """What one observer counted in one observed step.

    Attributes:
        tables: For each table of the catalogue, its counters. The tensors of all layers are
            moved to the host together, in one transfer.
        histograms: Fixed-edge histograms, where some are due.
        sites: Further sites of a module that a model calls at several places, by the suffix that
            tells them apart (`@2`); each is a layer of its own in the tables.
    """

    tables: dict[str, Counters]
    histograms: list[Histogram] = field(default_factory=list)
    sites: dict[str, "Counts"] = field(default_factory=dict)

    def include(self, part: "Counts | None") -> None:
        """Take what one more instrument has counted of the same layer in the same step."""
        if part is None:
            return
        for table, counters in part.tables.items():
            self.tables.setdefault(table, {}).update(counters)
        self.histograms += part.histograms


class Session(Protocol):
    """What an observer may ask of the watch that it works for."""

    active: bool
    """Whether the current step is observed. Hooks return at once while it is false."""

    detailed: bool
    """Whether the dear readings (σ′, membrane, histograms) are due in this observed step."""

    step: int
    """Number of the current step."""

    track_weights: int
    """Of a layer with more weights than these, so many are followed one by one."""

    loss_scale: "Tensor | float | None"
    """What the loss of the step that ends was multiplied by, as gradients still are."""

    misses_turns: bool
    """Whether some optimizer takes turns with others, and none of its steps was observed so far."""

    n_forwards: int
    """Number of the model's forward pass, from 1; 0 while the model itself was never called."""

    root_pass: RootPass
    """The forward pass of the model that runs now: whether it goes on from step to step."""

    def touch(self) -> None:
        """Say that a forward pass runs (some roots are never called as modules)."""

    def begins_sample(self, layer: str, starts: bool | str | None) -> bool | None:
        """Ask whether a call is the first time step of a sample.

        Args:
            layer: Name of the layer that is called.
            starts: What it says: yes, no, `"at rest"`, or None where it does not tell.
        """

    def spent(self, seconds: float) -> None:
        """Say how long an observation took; the budget is kept by this."""

    def phase(self) -> str:
        """`train` or `eval`."""

    def fault(self, layer: str, error: Exception) -> None:
        """Take note of a failure inside a hook; never raises, unless asked to by the tests."""

    def note(self, layer: str, message: str, *, aloud: bool = False) -> None:
        """Store, once, something that the user should know of a layer; `aloud`: warn of it."""

    def confirm(self, layer: Layer) -> None:
        """Store what a candidate turned out to be."""

    def optimizes(self, parameter: "Tensor") -> bool:
        """Whether an optimizer of the model, as far as one is known, holds a parameter."""


class Observer(Protocol):
    """Watches one layer."""

    layer: Layer
    """What is watched; `kind` may change once, from candidate to what it turned out to be."""

    # An observer may have more attributes. `always_on`: its hooks are kept between observed steps.
    # `inner_layers`: layers that it found within its own, and whose counters it hands over.
    # `called`: set to True when its layer is called in an observed step; None where that says
    # nothing. A layer that is never called is told aloud. `forget(phase)`: drop what was counted
    # since the last flush, in place of a flush whose counters nobody gets. `module`: the one that
    # its hooks are on, None where it is gone; else it is taken to be the one of the layer's name.

    def start(self, session: Session) -> None:
        """Put the hooks on. Called before each observed step, so it has to be quick."""

    def flush(self, phase: str) -> Counts | None:
        """Counters of `phase` since its last flush; None without an observation."""

    def stop(self) -> None:
        """Take every hook off; leave the model exactly as it was found, and keep the counters."""


class Collector(Protocol):
    """Finds what it knows in a model."""

    def __call__(
        self, model: "nn.Module", *, named: Mapping[str, str], taken: frozenset[str]
    ) -> Sequence[Observer]:
        """Return an observer for each layer found.

        Args:
            model: The model, wrappers and all.
            named: Layers that the user named by hand, with the axes of their output ("" to guess).
            taken: Names of modules for which no observer is wanted. When a model has changed while
                it is watched, it is asked again, with the names of what is as it was.

        A collector that has a parameter `hints` is given the user's `Hints` as well; one that has a
        parameter `known`, the observers that it found in the model before, and that go on.
        """


def load_collectors() -> dict[str, Collector]:
    """The installed collectors by name, ours and third parties'."""
    return {e.name: e.load() for e in entry_points(group="spikewatch.collectors")}


def load_hook() -> Any:
    """The class that wraps everything which is put on a module."""
    return entry_points(group="spikewatch.hooks")["hook"].load()


def load_tap() -> Any:
    """The function that makes the observer of a tapped tensor."""
    return entry_points(group="spikewatch.hooks")["tap"].load()


def load_teacher() -> Any:
    """The class of the observer that compares a student with its teacher."""
    return entry_points(group="spikewatch.hooks")["teacher"].load()
