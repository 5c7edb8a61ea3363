"""From the tensors of one layer to counters: which time step each is, and what is read of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from spikewatch.observing import Counts, Session

from .axes import Axes
from .calls import Call, Subject, TimeSteps, Turn
from .hooks import in_recomputation
from .lane import Lane
from .sites import Sites


_ONE_REPLICA = (
    "called on several devices or in several threads in one step; the figures are those of one of "
    "them, a part of the batch"
)


@dataclass(slots=True)
class Made:
    """Spikes that a layer has made.

    Attributes:
        spikes: With their graph; without one yet where `maker` is given.
        values: The same, detached; unfolded, where the layer folds time and batch into one axis.
        axes: Where time and batch are in the values.
        starts: Whether a sample begins here; None where the layer does not tell.
        nodes: Finds the surrogate's nodes.
        maker: The node that makes them, where they are seen from within its own forward.
        module: The layer; None where it is a function.
        output: All that the layer returned.
        unfold: What made the values' shape of the spikes'.
    """

    spikes: Tensor
    values: Tensor
    axes: Axes
    starts: bool | None
    nodes: Callable[[], list[Any]]
    maker: Any = None
    module: nn.Module | None = None
    output: Any = None
    unfold: Callable[[Tensor], Tensor] | None = None

    @property
    def has_graph(self) -> bool:
        """Whether a backward pass may come by."""
        return self.maker is not None or self.spikes.requires_grad


class LayerReader:
    """Reads the spikes of one layer with every instrument, in each phase apart."""

    def __init__(self, subject: Subject, confirm_site: Callable[[str], None]) -> None:
        """Take the layer's subject, and what stores a further site, named by its suffix."""
        self._subject = subject
        self._confirm_site = confirm_site
        self._sites: dict[str, Sites] = {}  # by phase
        self._lanes: dict[str, Lane] = {}  # by phase
        self._clocks: dict[tuple[str, bool], TimeSteps] = {}  # by phase, and whether recomputed
        self._turn = Turn()

    def read(self, session: Session, made: Made) -> None:
        """Read the spikes of one call."""
        phase, again = session.phase(), in_recomputation()
        if again and not made.has_graph:
            return  # a checkpoint within a checkpoint: it will run once more, with a graph
        if not self._lane(phase).takes(made.spikes.device, again=again):
            self._subject.tell(_ONE_REPLICA)
            return
        number, starts, index = self._number(session, made, phase, again=again)
        sequence = made.axes.time is not None
        probed = session.detailed and (sequence or self._turn.takes(index))
        spread = session.detailed and (sequence or self._turn.spreads(index))
        has_slope = (probed or spread) and made.has_graph and not self._subject.library.spike_times
        sites = self._sites.get(phase)
        if sites is None:
            sites = self._sites[phase] = Sites(self._subject, self._confirm_site)
        sites.add(
            Call(
                spikes=made.spikes,
                values=made.values,
                axes=made.axes,
                time=number,
                starts_sample=starts,
                again=again,
                probed=probed,
                spread=spread,
                pick=self._turn.pick if sequence else None,
                nodes=made.nodes() if has_slope else [],
                maker=made.maker,
                module=made.module,
                output=made.output,
                unfold=made.unfold,
            )
        )

    def flush(self, session: Session | None, phase: str) -> Counts | None:
        """Counters of every instrument; those of further sites of a shared module apart."""
        if self._lane(phase).end():
            self._sites.pop(phase, None)
        counts = sites.flush() if (sites := self._sites.get(phase)) is not None else None
        if counts is not None and session is not None and session.detailed:
            clock = self._clocks.get((phase, False))
            self._turn.end(1 if clock is None else clock.forget_longest())
        return counts

    def _lane(self, phase: str) -> Lane:
        lane = self._lanes.get(phase)
        if lane is None:
            lane = self._lanes[phase] = Lane()
        return lane

    def _number(
        self, session: Session, made: Made, phase: str, *, again: bool
    ) -> tuple[int | None, bool, int]:
        """Time step of a call; whether a sample starts with it; its number among the calls."""
        if made.axes.time is not None:
            return 0, True, 0
        if not session.detailed:
            return None, False, 0
        clock = self._clocks.get((phase, again))
        if clock is None:
            clock = self._clocks[phase, again] = TimeSteps()
        starts = None if again else made.starts
        number, starts = clock.next(starts, forward=session.n_forwards)
        return number, starts, clock.longest - 1 if number is None else number
