"""What can go wrong, as a tree.

* `SpikewatchError`
    * `AttachError`: `attach()` cannot do what was asked. Raised at once, before training starts.
    * `StoreError`: a runs folder, journal or database cannot be opened or read.
    * `RuleError`: a rules file or an expression in it is wrong.
    * `MissingExtraError`: a command needs an optional part that is not installed.
    * `AlertRaised`: an alert whose rule has the action `raise` fired.

Every message says what happened, what was found, and what to do.
"""


class SpikewatchError(Exception):
    """Root of every error that spikewatch raises on purpose."""


class AttachError(SpikewatchError):
    """`attach()` cannot do what was asked of it."""


class StoreError(SpikewatchError):
    """A runs folder, a journal or a database cannot be opened, written or read."""


class RuleError(SpikewatchError):
    """A rules file, or an expression in it, is wrong."""


class MissingExtraError(SpikewatchError):
    """An optional part that the command needs is not installed."""

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs packages that are not installed. "
            f"Install them with: pip install 'spikewatch[{extra}]'"
        )


class AlertRaised(SpikewatchError):  # noqa: N818 - an alert, not an error of ours
    """An alert fired whose rule asks for an exception (`actions = ["raise"]`)."""
