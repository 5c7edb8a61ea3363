"""The app as a process of its own, started by name: the core never imports it."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from .errors import MissingExtraError, SpikewatchError


FIRST_PORT = 8501
_NEEDS = ("streamlit", "plotly", "watchdog")
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0
_POLL_S = 0.1
_N_PORTS_TRIED = 100


class Page:
    """The app on a runs folder; a context manager that stops it at the end.

    Attributes:
        url: Where the page is, once it is started.
    """

    def __init__(
        self, runs: str | Path, *, host: str = "127.0.0.1", port: int | None = None
    ) -> None:
        missing = [name for name in _NEEDS if find_spec(name) is None]
        if missing:
            raise MissingExtraError("app", "The page in the browser")
        self._port = free_port(host, port)
        shown = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host  # noqa: S104
        self.url = f"http://{f'[{shown}]' if ':' in shown else shown}:{self._port}"
        launch = import_module("spikewatch.app.launch")
        self._command = launch.command(Path(runs), port=self._port, host=host)
        self._env = os.environ | {"SPIKEWATCH_DIR": str(runs)}
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Start the app and wait until it answers.

        Raises:
            SpikewatchError: It ended, or did not answer in time; with what it said.
        """
        self._process = subprocess.Popen(  # noqa: S603 - our own app
            self._command,
            env=self._env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for us; we then end the app in good order.
            start_new_session=True,
        )
        deadline = time.monotonic() + _START_TIMEOUT_S
        try:
            while not self._answers():
                if self._process.poll() is not None:
                    raise SpikewatchError(f"The app could not start. It said:\n{self._tail()}")
                if time.monotonic() > deadline:
                    raise SpikewatchError(
                        f"The app did not answer at {self.url} within {_START_TIMEOUT_S:.0f} s. "
                        f"It said:\n{self._tail()}"
                    )
                time.sleep(_POLL_S)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self) -> None:
        """Wait until the app ends.

        Raises:
            SpikewatchError: It ended with an error.
        """
        assert self._process is not None  # noqa: S101 - waited for inside `with`
        # Not `process.wait()`: Polars installs a signal handler after which Ctrl-C no longer
        # interrupts a system call like that (seen with 2.1).
        while (code := self._process.poll()) is None:
            time.sleep(_POLL_S)
        if code != 0:
            raise SpikewatchError(f"The app ended. It said:\n{self._tail()}")

    def stop(self) -> None:
        """End the app, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=2) as answer:  # noqa: S310
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def _tail(self) -> str:
        self._said.seek(0)
        return "\n".join(self._said.read().splitlines()[-20:])


def free_port(host: str, port: int | None) -> int:
    """The port that was asked for, or the first free one from Streamlit's usual port upwards.

    Raises:
        SpikewatchError: The port that was asked for is taken, or cannot be listened on.
    """
    tried = [port] if port is not None else range(FIRST_PORT, FIRST_PORT + _N_PORTS_TRIED)
    why: Exception = OSError("no port")
    for candidate in tried:
        try:
            family, kind, *_, address = socket.getaddrinfo(
                host, candidate, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(family, kind) as probe:
                # As servers do: a connection that just closed does not make a port taken.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except (OSError, OverflowError) as error:
            why = error
        else:
            return candidate
    raise SpikewatchError(
        f"Cannot listen on {host}:{port or FIRST_PORT} ({why}). Choose another port with --port, "
        "or leave --port out to get a free one."
    )


def open_browser(url: str) -> None:
    """Open the page where there is a desktop; elsewhere a text browser would take the terminal."""
    on_linux = sys.platform.startswith("linux")
    if not on_linux or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(url)
