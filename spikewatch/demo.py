"""`spikewatch demo`: a real training, healthy or ill, watched as anyone would watch theirs."""

import argparse
import contextlib
import difflib
import itertools
import time
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .errors import MissingExtraError, SpikewatchError
from .ills import ILLS
from .paths import runs_dir


if TYPE_CHECKING:
    from .serving import Page

_EPOCHS = 12
# With the page open a step takes at least so long: the whole of it is then about a minute, which a
# person can follow.
_PACE_S = 0.22


def add_options(parser: Any) -> None:
    """Add the options of the command."""
    stories = "; ".join(f"{name}: {ill.story}" for name, ill in ILLS.items())
    parser.add_argument("--ill", metavar="NAME", help=f"plant an illness. {stories}")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=_positive, default=_EPOCHS, help=f"default: {_EPOCHS}")
    length.add_argument("--steps", type=_positive, help="optimizer steps, instead of epochs")
    parser.add_argument("--headless", action="store_true", help="no page, full speed, then exit")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--every", type=_positive, default=1, help="observe every n-th step")
    parser.add_argument("--dir", help="the runs folder")


def run(args: argparse.Namespace) -> int:
    """Train, show, judge.

    Returns:
        0, or without the page: what `spikewatch check` would exit with.

    Raises:
        MissingExtraError: The packages of the extra `demo` are missing.
        SpikewatchError: There is no such illness.
    """
    if any(find_spec(name) is None for name in ("sklearn", "rich")):
        raise MissingExtraError("demo", "`spikewatch demo`")
    if args.ill is not None and args.ill not in ILLS:
        close = difflib.get_close_matches(args.ill, ILLS, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(ILLS)}."
        raise SpikewatchError(f"There is no illness {args.ill!r}. {hint}")
    folder = runs_dir(args.dir)
    with _page(args, folder) as page:
        name = _train(args, folder, page)
        code = _judge(folder, name)
        if page is None:
            return code
        print(f"\n{page.url} stays open until Ctrl-C.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            page.wait()
        print()
    return 0


@contextlib.contextmanager
def _page(args: argparse.Namespace, folder: Path) -> Generator["Page | None"]:
    from .serving import Page

    if args.headless:
        yield None
        return
    try:
        page = Page(folder, host=args.host, port=args.port)
    except MissingExtraError as error:
        print(f"{error}\nGoing on without the page.\n")
        yield None
        return
    with page:
        yield page


def _train(args: argparse.Namespace, folder: Path, page: "Page | None") -> str:
    """Train the network; returns the run's name."""
    import torch

    import spikewatch

    from .zoo.digits import load_digits
    from .zoo.training import BATCH, Training

    torch.set_num_threads(1)  # so small a network is faster on one
    torch.manual_seed(args.seed)
    train, test = load_digits(seed=args.seed)
    training = Training.healthy()
    if args.ill is not None:
        ILLS[args.ill].plant(training)
        print(f"Planted: {ILLS[args.ill].story}.")
    n_steps = args.steps or args.epochs * (len(train) // BATCH)
    steps = itertools.islice(training.fit(train, test, seed=args.seed), n_steps)

    name = f"demo-{args.ill or 'healthy'}"
    with spikewatch.attach(training.net, run=name, dir=folder, every=args.every) as watch:
        if page is not None:
            _announce(f"{page.url}/run?run={watch.run}", browser=not args.no_browser)
        print(flush=True)
        with _Progress(n_steps) as progress:
            began = time.monotonic()
            for n, result in enumerate(steps, start=1):
                watch.log(**result)
                progress.show(result)
                if watch.should_stop:
                    break
                if page is not None:
                    time.sleep(max(0.0, began + n * _PACE_S - time.monotonic()))
    return watch.run


def _announce(url: str, *, browser: bool) -> None:
    from .serving import open_browser

    print(f"\nWatch it live: {url}")
    if browser:
        open_browser(url)


class _Progress:
    """A bar on a terminal; elsewhere a line for each epoch."""

    def __init__(self, n_steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._latest: dict[str, float] = {}
        self._console = Console()
        self._n = 0
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=n_steps, figures="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, result: dict[str, float]) -> None:
        """Show the figures of one more step."""
        self._latest |= result
        self._n += 1
        figures = "  ".join(f"{name} {value:.3f}" for name, value in self._latest.items())
        self._bar.update(self._task, advance=1, figures=figures)
        if not self._console.is_terminal and "accuracy" in result:
            print(f"step {self._n}  {figures}", flush=True)


def _judge(folder: Path, name: str) -> int:
    """Print what `spikewatch check` says of the run; returns its exit code."""
    from .alerts.check import check_run
    from .printing import print_verdict
    from .store import open_store

    with open_store(folder) as store:
        verdict = check_run(store, name)
    print()
    print_verdict(verdict)
    return verdict.exit_code


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number
