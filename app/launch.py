"""The command line that starts the app: by `spikewatch show`, and by `spikewatch demo`."""

import ipaddress
import sys
from pathlib import Path


ASGI = Path(__file__).with_name("asgi.py")


def command(runs: Path, *, port: int, host: str) -> list[str]:  # noqa: ARG001
    """The argv that serves the page.

    The runs folder is not part of it: it travels in `SPIKEWATCH_DIR`, because a store may be named
    by a URI with a password in it, and an argv can be read by every user of the machine.

    Args:
        runs: The runs folder (set it as `SPIKEWATCH_DIR` in the environment of the process).
        port: TCP port.
        host: Address to listen on. Anything but loopback prints a warning.
    """
    loopback = is_loopback(host)
    if not loopback:
        print(_open_to_others(host, port), file=sys.stderr)  # noqa: T201
    # A page of a stranger's that resolves its name to this machine is refused (DNS rebinding).
    everywhere = host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    allowed = ["127.0.0.1", "localhost", "::1"] if loopback else ["*" if everywhere else host]
    return [
        sys.executable,
        *("-m", "streamlit", "run", str(ASGI)),
        f"--server.address={host}",
        f"--server.port={port}",
        *(f"--server.allowedHosts={name}" for name in allowed),
        "--server.headless=true",
        "--server.fileWatcherType=none",
        "--browser.gatherUsageStats=false",
    ]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _open_to_others(host: str, port: int) -> str:
    return (
        f"Warning: the page will listen on {host}:{port}, where other machines can reach it. It "
        "asks for no password: whoever opens it sees all runs. Leave out --host to keep it on "
        f"this machine, and reach it from yours with: ssh -L {port}:127.0.0.1:{port} <this machine>"
    )
