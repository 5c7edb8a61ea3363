"""How a message gets to a channel, tried once. Nothing here shows an address."""

import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from ..errors import MissingExtraError
from .channels import Channel
from .messages import Message


TIMEOUT_S = 5.0
COMMAND_S = 30.0
_LATER = {408, 425, 429, 500, 502, 503, 504}  # what may be otherwise when tried again
_MOST_WAIT_S = 60.0

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


def sender(channel: Channel) -> Send:
    """The function that sends a message to a channel, or raises `NotDelivered`.

    Raises:
        MissingExtraError: Apprise is needed and not installed.
    """
    if channel.type == "command":
        return lambda message: _run(channel, message)
    if channel.type == "apprise":
        return _apprise(channel)
    shape = {"slack": Message.slack, "discord": Message.discord}.get(channel.type, Message.json)
    return lambda message: _post(channel.address, shape(message))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An address that holds a token is not handed on."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def _post(url: str, body: bytes) -> None:
    if not url.lower().startswith(("http://", "https://")):
        raise NotDelivered("its address does not begin with https:// or http://")
    headers = {"Content-Type": "application/json", "User-Agent": "spikewatch"}
    try:
        request = urllib.request.Request(url, body, headers)  # noqa: S310 - checked above
        with _opener.open(request, timeout=TIMEOUT_S):
            return
    except urllib.error.HTTPError as error:
        error.close()
        why = f"it answered {error.code} {_phrase(error.code)}".strip()
        if error.code in _LATER:
            raise TryLater(why, _seconds(error.headers.get("Retry-After"))) from None
        raise NotDelivered(why) from None
    except TimeoutError:
        raise TryLater(f"no answer within {TIMEOUT_S:g} s") from None
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, TimeoutError):
            raise TryLater(f"no connection within {TIMEOUT_S:g} s") from None
        raise TryLater(f"no connection ({type(reason).__name__})") from None
    except OSError as error:
        raise TryLater(f"the connection broke ({type(error).__name__})") from None
    except Exception as error:  # noqa: BLE001 - its message may quote the address
        raise NotDelivered(f"the request failed ({type(error).__name__})") from None


def _phrase(code: int) -> str:
    return HTTPStatus(code).phrase if code in {s.value for s in HTTPStatus} else ""


def _seconds(text: str | None) -> float:
    """`Retry-After` in seconds; 0 where it is a date or nothing."""
    return min(float(text), _MOST_WAIT_S) if text and text.strip().isdigit() else 0.0


def _run(channel: Channel, message: Message) -> None:
    """Run the channel's program. Arguments are seen by everyone on the machine: data is not."""
    try:
        done = subprocess.run(  # noqa: S603 - the user's own command
            channel.command,
            input=message.json(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotDelivered(f"it ran longer than {COMMAND_S:g} s and was ended") from None
    except OSError as error:
        raise NotDelivered(f"it cannot be run ({error.strerror})") from None
    if done.returncode:
        raise NotDelivered(f"it ended with exit code {done.returncode}")


def _apprise(channel: Channel) -> Send:
    try:
        import apprise
    except ImportError:
        raise MissingExtraError("notify", f"channel {channel.name!r} of type apprise") from None

    def send(message: Message) -> None:
        told = apprise.Apprise()
        if not told.add(channel.address):
            raise NotDelivered("Apprise does not know this kind of address")
        if not told.notify(title=message.title, body=message.text):
            raise TryLater("Apprise could not deliver it")

    return send
