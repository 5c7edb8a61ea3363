"""What part of a run the page looks at, and how finely."""

from dataclasses import dataclass


# Pixels of a wide screen are the limit of what a picture can show; more only costs.
MOST_BUCKETS = 400


@dataclass(frozen=True)
class Scope:
    """Rows of one run, rank and phase between two steps.

    Attributes:
        run: Name of the run.
        rank: Rank whose rows are shown; ranks see different samples, so they are not mixed.
        phase: `train` or `eval`.
        first_step: First step, inclusive.
        last_step: Last step, inclusive: the latest one when the page was drawn.
    """

    run: str
    rank: int
    phase: str
    first_step: int
    last_step: int

    @property
    def bucket_steps(self) -> int:
        """Steps per bucket: a power of two, so that finished buckets stay as they are drawn."""
        width = 1
        while (self.last_step - self.first_step) // width >= MOST_BUCKETS:
            width *= 2
        return width

    @property
    def params(self) -> dict[str, object]:
        """Parameters of the queries."""
        return {
            "run": self.run,
            "rank": self.rank,
            "phase": self.phase,
            "first": self.first_step,
            "last": self.last_step,
            "width": self.bucket_steps,
        }
