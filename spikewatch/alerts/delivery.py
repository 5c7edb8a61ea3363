"""Whether a message arrived, for all ways to send one."""

from collections.abc import Callable

from .messages import Message


Send = Callable[[Message], None]


class NotDelivered(Exception):  # noqa: N818 - read as "raise NotDelivered"
    """A message did not arrive; trying again is of no use."""


class TryLater(NotDelivered):
    """A message did not arrive this time.

    Attributes:
        after_s: How long the other side asks to wait.
    """

    def __init__(self, why: str, after_s: float = 0.0) -> None:
        super().__init__(why)
        self.after_s = after_s
