"""Messages through Apprise, which tells addresses to its log, above all those it cannot read."""

import logging
from collections.abc import Generator
from contextlib import contextmanager

from ..errors import MissingExtraError
from .channels import Channel
from .delivery import NotDelivered, Send, TryLater
from .messages import Message


# Apprise itself, and what it sends with. Several addresses are served by threads of a pool.
_LOGGERS = ("apprise", "urllib3.connectionpool", "urllib3.util.retry")
_POOL = "ThreadPoolExecutor"
OURS = "spikewatch-"  # so begin the names of threads of ours


class _Hush(logging.Filter):
    """Keeps records out of the log that tell of a message of ours."""

    n_running = 0

    def filter(self, record: logging.LogRecord) -> bool:
        thread = record.threadName or ""
        return not (thread.startswith(OURS) or (self.n_running and thread.startswith(_POOL)))


_hush = _Hush()


@contextmanager
def _hushed() -> Generator[None]:
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_hush)  # does nothing the second time
    _hush.n_running += 1
    try:
        yield
    finally:
        _hush.n_running -= 1


def apprise_sender(channel: Channel) -> Send:
    """The function that sends a message; to be called in a thread whose name begins with `OURS`.

    Raises:
        MissingExtraError: Apprise is not installed.
    """
    try:
        import apprise
    except ImportError:
        raise MissingExtraError("notify", f"channel {channel.name!r} of type apprise") from None

    def send(message: Message) -> None:
        told = apprise.Apprise()
        with _hushed():
            if not told.add(channel.address):
                raise NotDelivered("Apprise does not know this kind of address")
            if not told.notify(title=message.title, body=message.text):
                raise TryLater("Apprise could not deliver it")

    return send
