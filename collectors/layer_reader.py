"""From the tensors of one layer to counters: which time step each is, and what is read of it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Size, Tensor

from spikewatch.observing import Counts, Session

from .calls import Call, Parts, Subject, TimeSteps, Turn
from .hooks import in_recomputation
from .lane import Lane
from .layouts.axes import Axes
from .layouts.branches import Branches
from .samples.continuity import Continuity
from .samples.succession import Succession
from .sites import Sites


_ONE_REPLICA = (
    "called on several devices or in several threads in one step; the figures are those of one of "
    "them, a part of the batch"
)
_SPLIT = (
    "optimizer steps end within the model's forward, so that samples go on from step to step, as "
    "in truncated backpropagation through time. Neither their time to first spike nor their "
    "number is known of a step; rates, gradients and operations are"
)


@dataclass(frozen=True, slots=True)
class _Plain:
    """One time step of a loop, in a step without dear readings: most calls are like the last."""

    phase: str
    shape: Size
    axes: Axes
    neurons: tuple[int, ...]
    lane: Lane
    sites: Sites


class LayerReader:
    """Reads the spikes of one layer with every instrument, in each phase apart."""

    def __init__(self, subject: Subject, confirm_site: Callable[[str], None]) -> None:
        """Take the layer's subject, and what stores a further site, named by its suffix."""
        self._subject = subject
        self._confirm_site = confirm_site
        self._sites: dict[str, Sites] = {}  # by phase
        self._lanes: dict[str, Lane] = {}  # by phase
        self._clocks: dict[tuple[str, bool], TimeSteps] = {}  # by phase, and whether recomputed
        self._parts: dict[str, Parts] = {}  # by phase
        self._succession = Succession()
        self._branches = Branches()
        self._turn = Turn()
        self._continuity = Continuity()
        self._plain: _Plain | None = None  # the latest call, if it was one

    def read_alike(self, session: Session, spikes: Tensor, values: Tensor, axes: Axes) -> bool:
        """Read a call as the latest one was, without finding out again how; False if it differs."""
        plain = self._plain
        if plain is None or session.detailed or plain.axes is not axes:
            return False
        if plain.shape != spikes.shape or session.phase() != plain.phase or in_recomputation():
            return False
        if not plain.lane.takes(spikes.device, again=False):
            return False
        site = plain.sites.at(plain.neurons)
        if site is not None:
            site.add(Call(spikes, values, axes))
        return site is not None

    def read(self, session: Session, call: Call) -> None:
        """Read the spikes of one call."""
        phase, again = session.phase(), in_recomputation()
        if call.values.numel() == 0:
            return
        if again and not call.has_graph:
            return  # a checkpoint within a checkpoint: it will run once more, with a graph
        if not self._lane(phase).takes(call.spikes.device, again=again):
            self._subject.tell(_ONE_REPLICA)
            return
        call.again, call.detailed = again, session.detailed
        if call.axes.time is not None:
            self._place(call, phase)
            if call.detailed:
                call.probed = call.spread = True
                call.pick = self._turn.pick
        elif call.detailed:
            self._number(session, call, phase)
            if call.place is not None and not again:
                call.elsewhere = self._branches.add(call)
        has_slope = call.has_graph and not self._subject.library.spike_times
        if (call.probed or call.spread) and has_slope:
            call.nodes = call.find_nodes()
        if call.detailed and not again and call.axes.time is not None:
            call.fed_by_itself = self._succession.add(call, forward=session.n_forwards)
            if call.fed_by_itself:
                self._parts[phase].begin(call)
        sites = self._sites.get(phase)
        if sites is None:
            sites = self._sites[phase] = Sites(self._subject, self._confirm_site)
        sites.add(call)
        self._plain = self._as_plain(call, phase, sites)

    def _as_plain(self, call: Call, phase: str, sites: Sites) -> _Plain | None:
        if call.detailed or call.again or call.maker is not None or call.axes.time is not None:
            return None
        if call.unfold is not None or self._subject.library.spike_times:
            return None
        lane, shape = self._lane(phase), call.values.shape
        return _Plain(phase, shape, call.axes, call.neuron_shape, lane, sites)

    def flush(self, session: Session | None, phase: str) -> Counts | None:
        """Counters of every instrument; those of further sites of a shared module apart."""
        if session is not None:
            self._subject.loss_scale = session.loss_scale
            self._subject.misses_turns = session.misses_turns
        self._subject.is_open = session is not None and self._is_open(session, phase)
        if self._lane(phase).end():
            self._sites.pop(phase, None)
            self._plain = None
        counts = sites.flush() if (sites := self._sites.get(phase)) is not None else None
        self._clocks.pop((phase, True), None)
        if (parts := self._parts.get(phase)) is not None:
            parts.end_step()
        self._succession.end_step()
        self._branches.end_step()
        if counts is not None and session is not None and session.detailed:
            clock = self._clocks.get((phase, False))
            self._turn.end(1 if clock is None else clock.end_step())
        return counts

    def forget(self, phase: str) -> None:
        """Drop what was read since the last flush."""
        if (sites := self._sites.get(phase)) is not None:
            sites.forget()
        self.flush(None, phase)
        if (clock := self._clocks.get((phase, False))) is not None:
            clock.end_step()

    def _is_open(self, session: Session, phase: str) -> bool:
        """Whether the samples that run may go on in the next step; where they do it is told."""
        if phase == "train" and session.root_pass.is_split and session.detailed and self._sites:
            self._subject.tell(_SPLIT)
        return phase == "train" and session.root_pass.leaves_open

    def _lane(self, phase: str) -> Lane:
        lane = self._lanes.get(phase)
        if lane is None:
            lane = self._lanes[phase] = Lane()
        return lane

    def _place(self, call: Call, phase: str) -> None:
        """Find out where in its sample a sequence begins."""
        if self._subject.library.name == "user":
            call.starts_sample = None  # a forward that gets a sequence may begin with any state
        parts = self._parts.get(phase)
        if parts is None:
            parts = self._parts[phase] = Parts()
        parts.number(call)

    def _number(self, session: Session, call: Call, phase: str) -> None:
        """Find out which time step a call is, and whether the dear readings are taken of it."""
        clock = self._clocks.get((phase, call.again))
        if clock is None:
            clock = self._clocks[phase, call.again] = TimeSteps()
        starts = None if call.again else call.starts_sample
        if starts is None and not call.again and clock.is_first(session.n_forwards):
            goes_on = session.root_pass.goes_on(session.step) or self._continuity.goes_on(call)
            starts = False if goes_on else None
        call.time, call.starts_sample = clock.next(starts, forward=session.n_forwards)
        index = clock.longest - 1 if call.time is None else call.time
        call.probed, call.spread = self._turn.takes(index), self._turn.spreads(index)
