#!/usr/bin/env python3
"""Everything a developer runs, with nothing but Python 3.11 installed.

    python3 dev.py demo    set up .venv and train the demo, with the app open in the browser
    python3 dev.py test    set up .venv and pass all checks: ruff, ty, pytest (which gets [ARGS])
    python3 dev.py lint    ruff and ty only
    python3 dev.py fix     let ruff mend and format what it can
    python3 dev.py docs    write anew what is generated: the lists of metrics and rules
    python3 dev.py shot    take the README's screenshots anew, of a real demo in a real Chromium

The first run takes some minutes, most of them for torch. Later runs find everything in place.
"""

from __future__ import annotations  # an older Python has to get as far as the message

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
INPUTS = ("pyproject.toml", "constraints.txt", "requirements-libraries.txt")
# SNN libraries in folders of their own: old versions of one that is installed, and one that brings
# a package `tests`, and says that it wants an older Python than it works with.
APART = {
    "spikingjelly==0.0.0.0.14": ["--target", str(VENV / "spikingjelly-0.0.0.0.14"), "--upgrade"],
    "spikingjelly==0.0.0.0.12": ["--target", str(VENV / "spikingjelly-0.0.0.0.12"), "--upgrade"],
    "lava-dl==0.6.0": [
        *("--target", str(VENV / "lava-dl-0.6.0"), "--upgrade"),
        "--ignore-requires-python",
    ],
}
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
MIN_PYTHON = (3, 11)
TAIL_LINES = 40


class Failed(Exception):  # noqa: N818 - read as "raise Failed"
    """A step failed; the message is for the user."""


def main(argv: list[str]) -> int:
    """Run one task; returns the exit code."""
    name, args = (argv[0], argv[1:]) if argv else ("help", [])
    task = TASKS.get(name)
    if task is None:
        print(__doc__)
        if name in ("help", "-h", "--help"):
            return 0
        print(f"There is no task {name!r}. Choose one of: {', '.join(TASKS)}.", file=sys.stderr)
        return 2
    if sys.version_info < MIN_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        print(f"spikewatch needs Python 3.11 or newer; this is {found}.", file=sys.stderr)
        print("Run this script with a newer one, e.g. python3.11 dev.py", name, file=sys.stderr)
        return 2
    os.chdir(ROOT)
    try:
        return task(args)
    except Failed as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


# ---------------------------------------------------------------------------------------- tasks


def demo(args: list[str]) -> int:
    """A real training with the app open in the browser."""
    set_up(dev=False)
    return subprocess.run([PYTHON, "-m", "spikewatch", "demo", *args], check=False).returncode


def test(args: list[str]) -> int:
    """All checks; arguments go to pytest."""
    set_up(dev=True)
    install_chromium()
    failed = check_style()
    print("pytest", flush=True)
    pytest = [PYTHON, "-m", "pytest", "-q", *([] if "-n" in args else ["-n", "2"]), *args]
    failed |= subprocess.run(pytest, check=False).returncode != 0
    return int(failed)


def lint(args: list[str]) -> int:  # noqa: ARG001 - a task takes arguments
    """Style and types."""
    set_up(dev=True)
    return int(check_style())


def fix(args: list[str]) -> int:  # noqa: ARG001
    """What ruff can mend by itself."""
    set_up(dev=True)
    mended = subprocess.run([PYTHON, "-m", "ruff", "check", "--fix", "."], check=False)
    subprocess.run([PYTHON, "-m", "ruff", "format", "."], check=True)
    return mended.returncode


def docs(args: list[str]) -> int:
    """What is generated of the documentation."""
    set_up(dev=True)
    return subprocess.run([PYTHON, "docs/tables.py", *args], check=False).returncode


def shot(args: list[str]) -> int:
    """The README's screenshots."""
    set_up(dev=True)
    install_chromium()
    return subprocess.run([PYTHON, "docs/shot.py", *args], check=False).returncode


TASKS = {"demo": demo, "test": test, "lint": lint, "fix": fix, "docs": docs, "shot": shot}


def check_style() -> bool:
    """Run the linters; returns whether one of them complained."""
    checks = {
        "ruff check": ["ruff", "check", "."],
        "ruff format": ["ruff", "format", "--check", "."],
        "ty check": ["ty", "check", "--python", str(VENV)],
    }
    failed = False
    for name, command in checks.items():
        try:
            step(name, [PYTHON, "-m", *command])
        except Failed as failure:
            print(failure)
            failed = True
    return failed


# --------------------------------------------------------------------------------------- set-up


def set_up(*, dev: bool) -> None:
    """Make .venv what the project's files say; returns at once where it is so already."""
    wanted = fingerprint()
    stamps = [VENV / ".set-up-for-dev"] + ([] if dev else [VENV / ".set-up-for-demo"])
    if any(stamp.exists() and stamp.read_text() == wanted for stamp in stamps):
        return
    print(f"Setting up {VENV.name} (once; torch is large)", flush=True)
    if not runs(PYTHON):
        step("python -m venv", [sys.executable, "-m", "venv", "--clear", str(VENV)], hint=VENV_HINT)
    pip("pip", "--upgrade", "pip>=25.1", "setuptools>=80")
    torch = next(x for x in lines_of("constraints.txt") if x.startswith("torch=="))
    pip("torch", torch, "-c", "constraints.txt")
    group = ["--group", "dev"] if dev else []
    pip("spikewatch", "-c", "constraints.txt", "-e", ".[app,tensorboard,demo]", *group)
    if dev:
        pip("libraries to watch", "--no-deps", "-r", "requirements-libraries.txt")
        for library, options in APART.items():
            pip(library, "--no-deps", *options, library)
    stamps[-1].write_text(wanted)


VENV_HINT = "On Debian and Ubuntu this needs: apt-get install python3-venv"


def fingerprint() -> str:
    """What the set-up depends on, as a hash; the place too, for an environment cannot be moved."""
    inputs = "".join((ROOT / name).read_text() for name in INPUTS)
    text = str(ROOT) + sys.version + str(APART) + inputs
    return hashlib.sha256(text.encode()).hexdigest()


def runs(python: Path) -> bool:
    """Whether there is a Python with pip at that place."""
    if not python.exists():
        return False
    tried = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)
    return tried.returncode == 0


def lines_of(name: str) -> list[str]:
    """Lines of a requirements file without comments."""
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [line for line in lines if line]


def pip(what: str, *args: str) -> None:
    """Install with the environment's pip."""
    quiet = ["--disable-pip-version-check", "--no-input"]
    step(f"pip install {what}", [PYTHON, "-m", "pip", "install", *quiet, *args])


def install_chromium() -> None:
    """The tests of the app need a real browser: Debian's, where there is none yet."""
    if any(shutil.which(name) for name in CHROMIUMS):
        return
    as_root = [] if hasattr(os, "geteuid") and os.geteuid() == 0 else ["sudo", "-n"]
    may = shutil.which("apt-get") and (not as_root or succeeds("sudo", "-n", "true"))
    if not may:
        raise Failed(
            "The tests of the app need Chromium, and none was found on the PATH. Install it "
            "(Debian, Ubuntu: sudo apt-get install chromium), or leave these tests out: "
            "python3 dev.py lint && .venv/bin/python -m pytest -m 'not browser'"
        )
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    step("apt-get update", [*as_root, "apt-get", "update"])
    install = [*as_root, "apt-get", "install", "-y", "--no-install-recommends", "chromium"]
    step("apt-get install chromium", install)


def succeeds(*command: str) -> bool:
    """Whether a command exists and exits with 0."""
    if not shutil.which(command[0]):
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def step(name: str, command: list[str | Path], *, hint: str = "") -> None:
    """Run a command quietly, with a line that says how long it took; show its end if it fails.

    Raises:
        Failed: It exited with another code than 0.
    """
    print(f"  {name} … ", end="", flush=True)
    began = time.monotonic()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    took = f"{time.monotonic() - began:.1f} s"
    print("ok" if done.returncode == 0 else "FAILED", f"({took})", flush=True)
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-TAIL_LINES:])
        raise Failed("\n".join(x for x in (tail, hint) if x))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
