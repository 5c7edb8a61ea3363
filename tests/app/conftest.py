"""Runs on disk as a training leaves them, and the app in a real browser."""

import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from spikewatch.alerts.engine import Engine
from spikewatch.alerts.loading import load_rules
from spikewatch.app import launch
from spikewatch.journal import JournalWriter
from spikewatch.metrics import RECORDS, TABLES
from spikewatch.metrics.wide import widen
from spikewatch.paths import journal_path


N_OBS = 512  # time steps × samples in one step
EVIDENCE_STEPS = 6  # 6 × 512 is the first sum above 2995
DYING, DYING_FROM = 7, 140
COLLAPSING, COLLAPSING_FROM = "head.bitlinear", 170


def layer_names(n_layers):
    return [f"backbone.stage{1 + i // 4}.block{i % 4}.lif" for i in range(n_layers)]


class Run:
    """A made-up run, written through the real journal."""

    def __init__(self, name="resnet-lif", *, n_layers=12, n_steps=300, seed=0, ill=True):
        self.name, self.n_layers, self.n_steps, self.ill = name, n_layers, n_steps, ill
        self.rng = np.random.default_rng(seed)
        self.began = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=n_steps)
        self.layers = layer_names(n_layers)
        self._engine = Engine(load_rules(None), run=name, rank=0)

    def keys(self, steps, layers):
        steps, layers = np.asarray(steps), list(layers)
        at = [self.began + timedelta(seconds=int(s)) for s in steps]
        return {
            "run": self.name,
            "rank": 0,
            "phase": "train",
            "step": np.repeat(steps, len(layers)),
            "layer": layers * len(steps),
            "at": [t for t in at for _ in layers],
        }

    def spikes(self, steps):
        n, depth = len(steps), np.arange(self.n_layers)
        n_neurons = 2048 // 2 ** (depth // 4)
        rate = 0.16 * 0.92**depth * (1 + 0.25 * np.tanh(np.asarray(steps)[:, None] / 80))
        dead = np.full((n, self.n_layers), 0.008) * (1 + 0.2 * depth / 12)
        if self.ill and self.n_layers > DYING:
            gone = np.clip((np.asarray(steps) - DYING_FROM) / 90, 0, 1) ** 0.8
            rate[:, DYING] *= 1 - 0.97 * gone
            dead[:, DYING] += 0.9 * gone
        rate = rate * self.rng.lognormal(0, 0.06, rate.shape)
        n_dead = (dead * n_neurons).round()
        known = np.asarray(steps)[:, None] >= EVIDENCE_STEPS - 1
        flat = {
            "n_obs": np.full(rate.size, N_OBS),
            "n_neurons": np.tile(n_neurons, n),
            "n_spikes": (rate * N_OBS * n_neurons).round().ravel(),
            "evidence_n_obs": np.full(rate.size, EVIDENCE_STEPS * N_OBS),
            "n_nonfinite_spikes": np.zeros(rate.size),
        }
        frame = pl.DataFrame(self.keys(steps, self.layers) | flat).with_columns(
            n_positive="n_spikes", sum_abs_spike=pl.col("n_spikes").cast(pl.Float64)
        )
        dead_column = pl.Series(np.where(known, n_dead, np.nan).ravel()).fill_nan(None)
        zero = pl.Series(np.where(known, 0.0, np.nan).repeat(self.n_layers, 1).ravel())
        frame = frame.with_columns(n_dead=dead_column, n_saturated=zero.fill_nan(None))
        return TABLES["spikes"].compute(frame)

    def gradients(self, steps):
        depth = np.arange(self.n_layers)
        shape = (len(steps), self.n_layers)
        norm = 10 ** (-3.2 + 1.6 * depth / self.n_layers) * self.rng.lognormal(0, 0.35, shape)
        slots = N_OBS * (2048 // 2 ** (depth // 4))
        counts = {
            "n_sg": np.tile(slots, len(steps)),
            "sum_sg": (slots * 0.21 * self.rng.lognormal(0, 0.1, shape)).ravel(),
            "n_sg_active": (slots * 0.4 * np.ones(shape)).round().ravel(),
            "n_grad": np.tile(slots, len(steps)),
            "sum_sq_grad": (norm**2).ravel(),
        }
        return TABLES["gradients"].compute(pl.DataFrame(self.keys(steps, self.layers) | counts))

    def ternary_layers(self):
        return ["head.ternary", COLLAPSING]

    def weights(self, steps):
        names, n = self.ternary_layers(), 40_000
        zero = np.full((len(steps), 2), 0.38) + self.rng.normal(0, 0.004, (len(steps), 2))
        if self.ill:
            gone = np.clip((np.asarray(steps) - COLLAPSING_FROM) / 70, 0, 1)
            zero[:, 1] += 0.61 * gone
        n_zero = (zero * n).round()
        counts = {
            "n_weights": np.full(zero.size, n),
            "n_weight_zero": n_zero.ravel(),
            "n_weight_negative": ((n - n_zero) * 0.48).round().ravel(),
            "n_weight_positive": (n - n_zero - ((n - n_zero) * 0.48).round()).ravel(),
            "sum_scale_positive": 0.04 * (n - n_zero).ravel(),
            "sum_scale_negative": 0.04 * (n - n_zero).ravel(),
            "delta": np.full(zero.size, 0.03),
        }
        return TABLES["weights"].compute(pl.DataFrame(self.keys(steps, names) | counts))

    def amplitudes(self, steps):
        layers = self.layers[:2]
        mean = 1 + 0.3 * np.tanh(np.asarray(steps)[:, None] / 100) * np.array([1, -1])
        counts = {
            "n_amplitudes": np.full(mean.size, 32),
            "sum_amplitude": 32 * mean.ravel(),
            "amplitude_min": 0.8 * mean.ravel(),
            "amplitude_max": 1.2 * mean.ravel(),
            "n_amplitudes_out": np.zeros(mean.size),
        }
        return TABLES["amplitudes"].compute(pl.DataFrame(self.keys(steps, layers) | counts))

    def histograms(self, steps):
        steps = [s for s in steps if s % 5 == 0]
        rows = []
        octaves = 2 ** (np.arange(-28, 29) / 4)
        linear = np.linspace(-0.16, 0.16, 65)
        for step in steps:
            drift = 0.3 * np.tanh(step / 100)
            for sign, layer in zip((1, -1), self.layers[:2], strict=True):
                values = self.rng.normal(1 + sign * drift, 0.12, 256)
                rows.append((step, layer, "amplitude", octaves, values))
            for layer in self.ternary_layers():
                ill = self.ill and layer == COLLAPSING
                gone = np.clip((step - COLLAPSING_FROM) / 70, 0, 1) if ill else 0
                latent = self.rng.normal(0, 0.045 * (1 - 0.8 * gone), 4000)
                rows.append((step, layer, "latent_weight", linear, latent))
                rows.append((step, layer, "alpha", octaves, np.abs(latent[:64]) + 0.02))
        base = {"run": self.name, "rank": 0, "phase": "train"}
        data = [
            base
            | {
                "step": step,
                "layer": layer,
                "at": self.began + timedelta(seconds=step),
                "kind": kind,
                "edges": edges.tolist(),
                "counts": np.histogram(values, edges)[0].tolist(),
                "below": int((values < edges[0]).sum()),
                "above": int((values > edges[-1]).sum()),
            }
            for step, layer, kind, edges, values in rows
        ]
        return pl.DataFrame(data, schema=RECORDS["histograms"])

    def scalars(self, steps):
        steps = np.asarray(steps)
        loss = 2.2 * np.exp(-steps / 110) + 0.12 + self.rng.normal(0, 0.03, len(steps))
        accuracy = 1 - 0.9 * np.exp(-steps / 90) + self.rng.normal(0, 0.01, len(steps))
        base = {"run": self.name, "rank": 0, "phase": "train"}
        rows = [
            base | {"step": int(s), "name": n, "at": self.began + timedelta(seconds=int(s)),
                    "value": float(v)}
            for n, values in (("loss", loss), ("accuracy", accuracy))
            for s, v in zip(steps, values, strict=True)
        ]  # fmt: skip
        return pl.DataFrame(rows, schema=RECORDS["scalars"])

    def head(self, *, kinds=("spiking", "ternary")):
        at = self.began
        run = {
            "run": self.name, "rank": 0, "at": at, "host": "here", "pid": os.getpid(),
            "script": "train.py --epochs 10", "every": "auto", "torch_version": "2.13.0",
            "spikewatch_version": "0.1.0",
        }  # fmt: skip
        rows = [(n, "spiking", "snntorch", "Leaky") for n in self.layers] * ("spiking" in kinds)
        rows += [(n, "ternary", "user", "TernaryLinear") for n in self.ternary_layers()] * (
            "ternary" in kinds
        )
        layers = [
            {"run": self.name, "rank": 0, "at": at, "layer": n, "kind": kind, "library": library,
             "type": type_, "depth": depth, "note": ""}
            for depth, (n, kind, library, type_) in enumerate(rows)
        ]  # fmt: skip
        return {
            "runs": pl.DataFrame([run], schema=RECORDS["runs"]),
            "layers": pl.DataFrame(layers, schema=RECORDS["layers"]),
            "events": self.event("attached", f"{len(layers)} layers", step=0),
        }

    def event(self, kind, message, *, step):
        row = {"run": self.name, "rank": 0, "step": step, "at": self.began, "kind": kind,
               "layer": "", "message": message}  # fmt: skip
        return pl.DataFrame([row], schema=RECORDS["events"])

    def body(self, steps, *, only=None):
        tables = {
            name: getattr(self, name)(list(steps))
            for name in only
            or ("spikes", "gradients", "weights", "amplitudes", "histograms", "scalars")
        }
        alerts = self._engine.feed(widen(tables))
        return tables | ({"alerts": alerts} if alerts.height else {})

    def write(self, runs, *, close=True, only=None, kinds=("spiking", "ternary")):
        with JournalWriter(journal_path(Path(runs), self.name, 0)) as journal:
            journal.append(self.head(kinds=kinds))
            if self.n_steps:
                journal.append(self.body(range(self.n_steps), only=only))
            if close:
                journal.append({"events": self.event("closed", "the run ended", step=self.n_steps)})
        return self


@pytest.fixture(name="make_run", scope="session")
def _make_run():
    return Run


@pytest.fixture(name="runs", scope="session")
def _runs(tmp_path_factory):
    """A runs folder with one ill run."""
    folder = tmp_path_factory.mktemp("runs")
    Run().write(folder)
    return folder


DEADLINE_S = 30
CHROMIUM_ARGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def wait_until(condition, *, what, deadline_s=DEADLINE_S):
    """The first true value of `condition()`."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if value := condition():
            return value
        threading.Event().wait(0.05)
    pytest.fail(f"waited {deadline_s} s in vain: {what}")


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return None


@contextmanager
def serve(runs):
    """The app as `spikewatch show` starts it, on a free port; gives its address."""
    port = _free_port()
    argv = launch.command(runs, port=port, host="127.0.0.1")
    env = os.environ | {"SPIKEWATCH_DIR": str(runs)}
    with subprocess.Popen(
        argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as server:
        # Its pipe is drained, or a talkative server would stop.
        log = []
        drain = threading.Thread(target=lambda: log.extend(server.stdout), daemon=True)
        drain.start()
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(
                lambda: server.poll() is not None or _answers(f"{url}/_stcore/health"),
                what="the server to start",
            )
            assert server.poll() is None, b"".join(log).decode()
            yield url
        finally:
            server.terminate()
            server.wait(DEADLINE_S)
            drain.join(DEADLINE_S)


@pytest.fixture(name="serve", scope="session")
def _serve():
    return serve


@pytest.fixture(name="wait_until", scope="session")
def _wait_until():
    return wait_until


@pytest.fixture(name="url", scope="session")
def _url(runs):
    with serve(runs) as url:
        yield url


@pytest.fixture(name="chromium", scope="session")
def _chromium():
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or "/usr/bin/chromium"
    if not shutil.which(path):
        pytest.fail(
            f"The browser tests need Chromium, and there is none at {path}. Install it with "
            "`apt-get install chromium`, or set CHROMIUM to where it is."
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


class Tab:
    """A browser tab that remembers whom it asked and what went wrong."""

    def __init__(self, browser, **options):
        self.context = browser.new_context(
            **{"viewport": {"width": 1400, "height": 1000}} | options
        )
        self.page = self.context.new_page()
        self.asked, self.faults = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._console)

    def _console(self, message):
        # For an address with a path Streamlit first tries whether that path is its root.
        probing = "/_stcore/" in message.location.get("url", "")
        if message.type == "error" and not probing:
            self.faults.append(message.text)

    def open(self, url):
        self.page.goto(url)
        return self.page

    def foreign(self):
        ours = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:http://127.0.0.1:")
        return [url for url in self.asked if not url.startswith(ours)]

    def check(self):
        """Nothing went wrong, and nobody else was asked."""
        assert self.page.locator('[data-testid="stException"]').all_inner_texts() == []
        assert self.faults == []
        assert self.foreign() == []


@pytest.fixture(name="tab")
def _tab(chromium):
    tabs = []

    def make(**options):
        tabs.append(Tab(chromium, **options))
        return tabs[-1]

    yield make
    for tab in tabs:
        tab.context.close()
