"""How a message gets to a channel, tried once. Nothing here shows an address."""

import http.client
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from base64 import b64encode
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

from .channels import Channel
from .delivery import NotDelivered, Send, TryLater
from .messages import Message
from .through_apprise import apprise_sender


TIMEOUT_S = 5.0
COMMAND_S = 30.0
_LATER = {408, 425, 429, 500, 502, 503, 504}  # what may be otherwise when tried again
_MOST_WAIT_S = 60.0


def sender(channel: Channel) -> Send:
    """The function that sends a message to a channel, or raises `NotDelivered`.

    Raises:
        MissingExtraError: Apprise is needed and not installed.
    """
    if channel.type == "command":
        return lambda message: _run(channel, message)
    if channel.type == "apprise":
        return apprise_sender(channel)
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
    try:
        with _opener.open(_request(url, body), timeout=TIMEOUT_S):
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
        raise TryLater(f"no connection ({_words(reason)})") from None
    except OSError as error:
        raise TryLater(f"the connection broke ({type(error).__name__})") from None
    except (ValueError, http.client.InvalidURL):  # they quote the address
        raise NotDelivered("its address cannot be read; it looks like https://host/path") from None
    except Exception as error:  # noqa: BLE001 - so may this
        raise NotDelivered(f"the request failed ({type(error).__name__})") from None


def _request(url: str, body: bytes) -> urllib.request.Request:
    """A request; user and password of an address go where servers look for them."""
    headers = {"Content-Type": "application/json", "User-Agent": "spikewatch"}
    parts = urlsplit(url)
    who, at, host = parts.netloc.rpartition("@")
    if at:
        headers["Authorization"] = "Basic " + b64encode(unquote(who).encode()).decode()
    return urllib.request.Request(parts._replace(netloc=host).geturl(), body, headers)  # noqa: S310


def _words(reason: object) -> str:
    known = {
        socket.gaierror: "no host of this name",
        ConnectionRefusedError: "nothing listens there",
        ssl.SSLCertVerificationError: "its certificate is not valid",
        ssl.SSLError: "it speaks no TLS",
    }
    return next((text for kind, text in known.items() if isinstance(reason, kind)),
                type(reason).__name__)  # fmt: skip


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
