"""Ways to watch a training: nothing, spikewatch, and one read of what it reads."""

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

import spikewatch
from spikewatch.sampling import Budget

from ..models.training import Built, Training


@dataclass(frozen=True)
class Watching:
    """A training that is watched.

    Attributes:
        close: Ends it: afterwards all that it writes is written.
        after_step: What the user of this tool calls after each step.
        n_observed: Steps that were observed until now; None: all are.
        relieve: Lets go of what the tool keeps, as its user has to from time to time; not timed.
        running: Entered while the watched training runs, left while it stands still.
    """

    close: Callable[[], object] = lambda: None
    after_step: Callable[[], object] | None = None
    n_observed: Callable[[], int] | None = None
    relieve: Callable[[], object] = lambda: None
    running: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext


@dataclass(frozen=True)
class Watcher:
    """A way to watch.

    Attributes:
        name: What `--only` calls it.
        about: What the table calls it.
        attach: Puts it on a training; it may write into the folder.
        needs: Module that has to be installed.
        applies: Whether it can watch this training.
        threads: Whether it works in threads of its own.
        observes: Whether it looks at anything (the null does not).
        files: Pattern of the files that it writes.
        rounds: Share of the planned rounds: the fewer, the less depends on them.
    """

    name: str
    about: str
    attach: Callable[[Built, Path], Watching]
    needs: str = "spikewatch"
    applies: Callable[[Training], bool] = lambda training: True  # noqa: ARG005
    threads: bool = False
    observes: bool = True
    files: str = "*"
    rounds: float = 0.5

    @property
    def installed(self) -> bool:
        """Whether what it needs is here."""
        return find_spec(self.needs.partition(".")[0]) is not None


NULL, DEFAULTS, EVERY_STEP, FLOOR = "nothing", "defaults", "every-step", "one-read"


class WatchedTime:
    """A clock that only goes while the watched training runs.

    The sampler earns its credit by the clock. Beside a bare training that runs by turns it would
    earn twice what it may spend.
    """

    def __init__(self) -> None:
        self._past_s = 0.0
        self._since_s: float | None = None

    def __call__(self) -> float:
        """Seconds that the watched training has run."""
        running_s = 0.0 if self._since_s is None else time.perf_counter() - self._since_s
        return self._past_s + running_s

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        """Let the clock go."""
        self._since_s = time.perf_counter()
        try:
            yield
        finally:
            self._past_s, self._since_s = self(), None


class CountingBudget(Budget):
    """The sampler of `every="auto"`, which also counts what it chose."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock=clock)
        self.n_observed = 0

    def observe(self, step: int) -> bool:
        """As the sampler that it is."""
        chosen = super().observe(step)
        self.n_observed += chosen
        return chosen


def _attach_nothing(built: Built, folder: Path) -> Watching:
    del built, folder
    return Watching(n_observed=lambda: 0)


def _attach_defaults(built: Built, folder: Path) -> Watching:
    watch = spikewatch.attach(built.net, dir=folder, quiet=True)
    stepping = watch._stepping
    if not isinstance(stepping._sampler, Budget):
        raise TypeError(f"attach() samples by {type(stepping._sampler).__name__}, not by a Budget")
    clock = WatchedTime()
    stepping._sampler = sampler = CountingBudget(clock)
    return Watching(watch.close, n_observed=lambda: sampler.n_observed, running=clock.running)


def _attach_every_step(built: Built, folder: Path) -> Watching:
    return Watching(spikewatch.attach(built.net, dir=folder, quiet=True, every=1).close)


def _attach_one_read(built: Built, folder: Path) -> Watching:
    del folder

    def read(module: object, args: object, output: Tensor | tuple[Tensor, ...]) -> None:
        del module, args
        spikes = output[0] if isinstance(output, tuple) else output
        spikes.detach().sum()

    handles = [m.register_forward_hook(read) for m in built.neurons]
    return Watching(lambda: [h.remove() for h in handles])


_ours = partial(Watcher, threads=True, files="*.journal")

WATCHERS = (
    Watcher(NULL, "nothing (A/A)", _attach_nothing, observes=False, rounds=1.0),
    _ours(DEFAULTS, "spikewatch, defaults", _attach_defaults, rounds=1.0),
    _ours(EVERY_STEP, "spikewatch, every step", _attach_every_step, rounds=0.6),
    Watcher(FLOOR, "one read: spikes.sum()", _attach_one_read),
)
