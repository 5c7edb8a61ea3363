"""Where a layer's neurons stand: one set of instruments for each shape of them.

A module may be called at several sites of a model, and its neurons may change with the length of
the input. Neurons of different shapes are never mixed.
"""

from collections.abc import Callable

from spikewatch.observing import Counts

from .calls import Call, Subject
from .instruments.gradient_counts import GradientCounts
from .instruments.listing import ALWAYS, CLOSE, INSTRUMENTS, Instrument
from .instruments.spike_counts import SpikeCounts


# A module that more sites share is a function rather than a layer.
MAX_SITES = 4
_IN_TURN = (
    "called several times in a row with a fresh state, or with its own spikes, as where several "
    "sites of the model share it. They are counted together, and the time to first spike is not "
    "known. To tell them apart, give each site a module of its own"
)

_AT_PLACES = (
    "called at several places of the model, as a surrogate that gates or neurons share, or a "
    "neuron that has its turn twice in each time step. They are counted together, and the time to "
    "first spike is not known. To tell them apart, give each place a module of its own"
)


class Alternation:
    """Follows how many calls in a row make a sample.

    Sites that pass states of their own to one module take turns in each time step: as many samples
    begin, one call each, as there are sites, and the last one seems to take all further calls. Of
    sequences each site begins a sample as well.

    Attributes:
        in_turn: Whether that was seen in this step.
        at_places: Whether the calls came from several places in the code, of several neurons.
    """

    def __init__(self) -> None:
        self.at_places = False
        self.in_turn = False
        self._length = 0  # of the sample that runs; 0: its beginning was not seen
        self._after_single = False

    def add(self, call: Call) -> None:
        """Follow one call."""
        if call.again or call.time is None:
            return
        self.at_places |= call.elsewhere
        if call.axes.time is not None:
            self.in_turn |= call.fed_by_itself
            return
        if call.starts_sample:
            self._after_single = self._length == 1
            self._length = 1
        elif self._length:
            self._length += 1
            self.in_turn |= self._after_single


class Site:
    """The instruments at neurons of one shape, in one phase."""

    def __init__(self, subject: Subject, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.called = False
        self._subject = subject
        self._alternation = Alternation()
        self._instruments = [make(subject) for make in INSTRUMENTS]
        self._gradients = next(x for x in self._instruments if isinstance(x, GradientCounts))
        self._spikes = next(x for x in self._instruments if isinstance(x, SpikeCounts))
        self._always = [x for x in self._instruments if isinstance(x, ALWAYS)]
        self._every_step = [x for x in self._instruments if not isinstance(x, CLOSE)]
        self._detailed = False  # whether a call since the last flush had the dear readings
        self._faulty: set[Instrument] = set()  # those that failed since the last flush

    def add(self, call: Call) -> None:
        """Have a call read by the instruments that its step is due for."""
        self.called = True
        self._alternation.add(call)
        # Without a graph a state at rest looks fresh, also that of a neuron that had no input yet.
        if self._alternation.in_turn and (call.has_graph or call.axes.time is not None):
            self._subject.tell(_IN_TURN)
        if self._alternation.at_places:
            self._subject.tell(_AT_PLACES)
        self._detailed |= call.detailed
        for instrument in self._instruments if call.detailed else self._always:
            try:
                instrument.add(call)
            except Exception as error:  # noqa: BLE001 - one that fails leaves the others theirs
                self._failed(instrument, error)

    def flush(self) -> Counts | None:
        """Counters of all instruments; None without a call since the last flush.

        A gradient may come a step later than the call, as where a GAN's discriminator steps before
        its generator: it is counted in the step that it comes in.
        """
        if not self.called:
            return self._gradients.flush()
        self.called = False
        whole = Counts({})
        for instrument in self._instruments if self._detailed else self._every_step:
            whole.include(self._counts_of(instrument))
        self._detailed = False
        self._faulty.clear()
        if self._alternation.in_turn or self._alternation.at_places:
            whole.tables.pop("timing", None)
            whole.histograms = [h for h in whole.histograms if h.kind != "ttfs"]
        self._alternation = Alternation()
        return whole

    def forget(self) -> None:
        """Drop what was read since the last flush, as far as it is not folded into a history."""
        self._spikes.forget()
        self.flush()

    def _counts_of(self, instrument: Instrument) -> Counts | None:
        """What an instrument has counted; nothing where it has failed, as that would be a part."""
        try:
            counts = instrument.flush()
        except Exception as error:  # noqa: BLE001 - one that fails leaves the others theirs
            self._failed(instrument, error)
            return None
        return None if instrument in self._faulty else counts

    def _failed(self, instrument: Instrument, error: Exception) -> None:
        self._faulty.add(instrument)
        self._subject.fault(error)


class Sites:
    """The sites of one layer in one phase.

    A shape that comes while another one was already read in the same step is a further site. One
    that comes in a later step means that the neurons changed: counting begins anew.
    """

    def __init__(self, subject: Subject, confirm: Callable[[str], None]) -> None:
        """Take the layer's subject, and what stores a further site, named by its suffix."""
        self._subject = subject
        self._confirm = confirm
        self._sites: list[Site] = []

    def at(self, shape: tuple[int, ...]) -> Site | None:
        """The site where neurons of this shape stand, if they were seen."""
        for known in self._sites:
            if known.shape == shape:
                return known
        return None

    def add(self, call: Call) -> None:
        """Have a call read at the site where its neurons stand."""
        shape = call.neuron_shape
        site = self.at(shape) or self._open(shape)
        if site is not None:
            site.add(call)

    def flush(self) -> Counts | None:
        """Counters of the first site, with those of the others in `sites`."""
        counted = [(site, c) for site in self._sites if (c := site.flush()) is not None]
        if not counted:
            return None
        first, counts = counted[0]
        if first is not self._sites[0]:  # the neurons changed back to an earlier shape
            self._sites = [site for site, _ in counted]
        counts.sites = {_suffix(i): c for i, (_, c) in enumerate(counted) if i > 0}
        return counts

    def forget(self) -> None:
        """Drop what was read since the last flush."""
        for site in self._sites:
            site.forget()

    def _open(self, shape: tuple[int, ...]) -> Site | None:
        tell = self._subject.tell
        if self._sites and not any(s.called for s in self._sites):
            tell(
                f"its neurons changed to shape {shape}; counting began anew. "
                "Inputs of varying length do this"
            )
            self._sites.clear()
        if len(self._sites) == MAX_SITES:
            tell(f"it is shared by more than {MAX_SITES} sites; the others are not counted")
            return None
        if self._sites:
            tell(
                f"called with neurons of shape {self._sites[0].shape} and {shape} in one step: "
                "several sites share it, and each is counted apart"
            )
            self._confirm(_suffix(len(self._sites)))
        self._sites.append(Site(self._subject, shape))
        return self._sites[-1]


def _suffix(index: int) -> str:
    return f"@{index + 1}"
