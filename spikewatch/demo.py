"""`spikewatch demo`: a real training, healthy or ill, watched as anyone would watch theirs."""

import argparse
import contextlib
import difflib
import time
from collections.abc import Collection, Generator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .errors import MissingExtraError, SpikewatchError
from .ills import ILLS
from .paths import runs_dir
from .stories import MODEL_STORIES


if TYPE_CHECKING:
    from .serving import Page
    from .zoo.training import Training

_MODEL = "digits"
# With the page open a step takes at least so long: the whole of it is then about a minute, which a
# person can follow.
_PACE_S = 0.22


def add_options(parser: Any) -> None:
    """Add the options of the command."""
    about = f"what to train, see below (default: {_MODEL})"
    parser.add_argument("--model", metavar="NAME", default=_MODEL, help=about)
    parser.add_argument("--ill", metavar="NAME", help="an illness to plant, see below")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=_positive, help="default: enough to learn well")
    length.add_argument("--steps", type=_positive, help="optimizer steps, instead of epochs")
    parser.add_argument("--headless", action="store_true", help="no page, full speed, then exit")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--every", type=_positive, default=1, help="observe every n-th step")
    parser.add_argument("--dir", help="the runs folder")
    ills = {name: ill.story for name, ill in ILLS.items()}
    parser.epilog += f"\n\nmodels:\n{_listed(MODEL_STORIES)}\n\nillnesses:\n{_listed(ills)}"


def _listed(stories: Mapping[str, str]) -> str:
    width = max(map(len, stories)) + 2
    return "\n".join(f"  {name:{width}}{story}" for name, story in stories.items())


def run(args: argparse.Namespace) -> int:
    """Train, show, judge.

    Returns:
        0, or without the page: what `spikewatch check` would exit with.

    Raises:
        MissingExtraError: The packages of the extra `demo` are missing.
        SpikewatchError: There is no such model or illness, or the model cannot have it.
    """
    if any(find_spec(name) is None for name in ("sklearn", "rich")):
        raise MissingExtraError("demo", "`spikewatch demo`")
    _check("model", args.model, MODEL_STORIES)
    if args.ill is not None:
        _check("illness", args.ill, ILLS)
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


def _check(kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}."
        raise SpikewatchError(f"There is no {kind} {name!r}. {hint}")


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

    from .zoo.models import MODELS
    from .zoo.training import BATCH

    torch.set_num_threads(1)  # networks so small are faster on one
    torch.manual_seed(args.seed)
    model = MODELS[args.model]
    train, test = model.data(seed=args.seed)
    training = model.train(model.build(), train)
    if args.ill is not None:
        _plant(args.ill, training, args.model)
    n_steps = args.steps or (args.epochs or model.n_epochs) * (len(train) // BATCH)
    steps = training.fit(train, test, seed=args.seed, n_steps=n_steps)

    kind = args.ill or ("healthy" if args.model == _MODEL else "")
    name = "-".join(w for w in ("demo", args.model if args.model != _MODEL else "", kind) if w)
    teacher = getattr(training, "teacher", None)
    with spikewatch.attach(
        training.net, run=name, dir=folder, every=args.every, teacher=teacher
    ) as watch:
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


def _plant(ill: str, training: "Training", model: str) -> None:
    if not ILLS[ill].plant(training):
        able = [name for name, other in ILLS.items() if other.where(training.net) is not None]
        raise SpikewatchError(
            f"The model {model!r} has no part that could fall ill with {ill!r}. "
            f"It can have: {', '.join(able)}."
        )
    print(f"Planted: {ILLS[ill].story}.")


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
        told = {name: f"{name} {value:.3f}" for name, value in self._latest.items()}
        short = "  ".join(told[name] for name in ("loss", "accuracy") if name in told)
        self._bar.update(self._task, advance=1, figures=short)
        if not self._console.is_terminal and "accuracy" in result:
            print(f"step {self._n}  {'  '.join(told.values())}", flush=True)


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
