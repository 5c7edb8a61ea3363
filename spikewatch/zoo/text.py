"""Text that comes with Python: the docstrings of its standard library, letter by letter."""

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikewatch.errors import SpikewatchError


ALPHABET = " abcdefghijklmnopqrstuvwxyz0123456789.,:;'()_=-"
WINDOW = 24
# Modules that every Python has, and that talk.
_MODULES = (
    "argparse", "collections", "contextlib", "csv", "datetime", "decimal", "fractions", "json",
    "logging", "pathlib", "random", "statistics", "string", "subprocess", "tempfile", "textwrap",
    "threading", "unittest", "urllib.parse", "zipfile",
)  # fmt: skip
_TEST_FRAC = 0.1
_N_TEST_WINDOWS = 96
_N_WINDOWS_AN_EPOCH = 1280


@dataclass(frozen=True)
class Text:
    """A text as letters: indices into `ALPHABET`, shape (n,).

    As windows begin anywhere, an epoch has no natural length; it is given one.
    """

    letters: Tensor

    def __len__(self) -> int:
        return _N_WINDOWS_AN_EPOCH

    def batches(self, size: int, *, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of windows that begin anywhere, and the letter after each letter of them.

        Args:
            size: Windows a batch.
            generator: Source of the places.
        """
        for _ in range(len(self) // size):
            starts = torch.randint(len(self.letters) - WINDOW, (size,), generator=generator)
            yield self._windows(starts)

    def all(self) -> tuple[Tensor, Tensor]:
        """Windows at even distances, the same ones each time."""
        starts = torch.linspace(0, len(self.letters) - WINDOW - 1, _N_TEST_WINDOWS).long()
        return self._windows(starts)

    def _windows(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        window = self.letters[starts[:, None] + torch.arange(WINDOW + 1)]
        return window[:, :-1], window[:, 1:]


def load_text(*, seed: int = 0) -> tuple[Text, Text]:  # noqa: ARG001 - it is split the same way
    """The training and the test text: the first nine tenths, and the last.

    Raises:
        SpikewatchError: This Python has no docstrings.
    """
    letters = torch.tensor([ALPHABET.index(letter) for letter in _docstrings()])
    if len(letters) < 50_000:
        raise SpikewatchError(
            f"The docstrings of the standard library have {len(letters)} letters here, too few to "
            "learn from. Start Python without -OO, which strips them."
        )
    split = int(len(letters) * (1 - _TEST_FRAC))
    return Text(letters[:split]), Text(letters[split:])


def _docstrings() -> str:
    found: dict[str, None] = {}
    for name in _MODULES:
        module = importlib.import_module(name)
        for owner in (module, *(v for v in vars(module).values() if inspect.isclass(v))):
            for thing in (owner, *vars(owner).values()):
                if thing is module or inspect.isclass(thing) or inspect.isfunction(thing):
                    found[_plain(thing.__doc__)] = None
    return " ".join(filter(None, found))


def _plain(text: object) -> str:
    if not isinstance(text, str):  # None, or a descriptor: some classes compute their docstring
        return ""
    return " ".join(re.sub(f"[^{re.escape(ALPHABET)}]", " ", text.lower()).split())


@torch.no_grad()
def letter_accuracy(net: nn.Module, text: Text) -> float:
    """Share of letters of the text's fixed windows that the network foretells."""
    was_training = net.training
    net.eval()
    windows, following = text.all()
    right = net(windows).argmax(-1) == following
    net.train(was_training)
    return right.float().mean().item()


def letter_loss(scores: Tensor, following: Tensor) -> Tensor:
    """Cross-entropy in nats a letter; scores of shape (batch, window, letters)."""
    return nn.functional.cross_entropy(scores.flatten(0, 1), following.flatten())
