"""The forward pass of the model that runs now, where optimizer steps end within it.

Truncated backpropagation through time may be written into a model's own forward, as online learning
may be. A sample goes on there from one step to the next, and no layer need tell of it.
"""


class RootPass:
    """In which step a forward pass of the model began, and how many have ended in it."""

    def __init__(self) -> None:
        self._began: int | None = None  # None: none runs, or nobody tells when it ends
        self._n_ends = 0
        self._ends_once = False  # the latest that steps ended in had one of them, its last

    @property
    def runs(self) -> bool:
        """Whether one runs that was seen to begin."""
        return self._began is not None

    @property
    def leaves_open(self) -> bool:
        """Whether what has begun may go on in the step after the one that ends now."""
        return self.runs and not self._ends_once

    @property
    def is_split(self) -> bool:
        """Whether a step has ended in the one that runs."""
        return self.runs and self._n_ends > 0

    def goes_on(self, step: int) -> bool:
        """Whether it began before this step."""
        return self._began is not None and self._began != step

    def enter(self, step: int) -> None:
        """One begins."""
        self._began, self._n_ends = step, 0

    def leave(self) -> None:
        """It is over."""
        if self._n_ends:
            self._ends_once = self._n_ends == 1
        self._began, self._n_ends = None, 0

    def end_step(self, *, end_is_told: bool) -> None:
        """A step has ended; `end_is_told`: whether a hook tells when the forward pass does."""
        self._n_ends += 1
        if not end_is_told:
            self._began = None
