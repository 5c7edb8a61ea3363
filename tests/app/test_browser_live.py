"""The page while a run is being written: rows come by themselves, and nothing is torn down."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect

from spikewatch.journal import JournalWriter
from spikewatch.paths import journal_path
from spikewatch.store import open_store


pytestmark = pytest.mark.browser

TRAINING = """
import sys, threading
import snntorch as snn
import torch
from torch import nn
import spikewatch

torch.set_num_threads(1)
torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(16, 32), snn.Leaky(beta=0.9)
        self.fc2, self.lif2 = nn.Linear(32, 4), snn.Leaky(beta=0.9)

    def forward(self, x):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for _ in range(8):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(spk2)
        return torch.stack(out)


net = Net()
optimizer = torch.optim.Adam(net.parameters(), 1e-3)
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
with spikewatch.attach(net, run="training", every=1) as watch:
    while not stop.wait(0.05):
        x, y = 2 * torch.rand(64, 16), torch.randint(0, 4, (64,))
        loss = nn.functional.cross_entropy(net(x).mean(0), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.log(loss=loss)
"""


@contextmanager
def training(folder):
    """A real training in a process of its own; ends when it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "SPIKEWATCH_DIR": str(folder)},
    )
    try:
        yield process
    finally:
        process.communicate(timeout=30)


def step_shown(page):
    badge = page.locator(".st-key-status-strip").get_by_text("step ").first
    return int(badge.inner_text().removeprefix("step ").replace(",", ""))


def mark_charts(page):
    """Give each chart's DOM node a mark that a replaced node would lack."""
    return page.evaluate(
        "[...document.querySelectorAll('.spikewatch-plot')].map((n, i) => n.__mark = i).length"
    )


def marks(page):
    return page.evaluate("[...document.querySelectorAll('.spikewatch-plot')].map(n => n.__mark)")


def drawn(page, key):
    return int(page.locator(f".st-key-{key} .spikewatch-plot").get_attribute("data-drawn"))


def x_range(page, key):
    return page.evaluate(
        f"document.querySelector('.st-key-{key} .spikewatch-plot')._fullLayout.xaxis.range"
    )


def zoom(page, key):
    """Drag over the middle of a chart, as a reader does."""
    chart = page.locator(f".st-key-{key} .nsewdrag").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.3 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], y, steps=8)
    page.mouse.up()


def test_the_page_opens_during_a_training_and_follows_it(tmp_path, serve, tab, wait_until):
    with training(tmp_path), serve(tmp_path) as url:
        one = tab()
        wait_until(lambda: any(tmp_path.glob("*/rank-*.journal")), what="the journal")
        page = one.open(f"{url}/run?run=training")
        expect(page.get_by_text("● running").first).to_be_visible(timeout=20_000)
        first = wait_until(lambda: step_shown(page), what="a step")
        wait_until(lambda: step_shown(page) > first + 20, what="20 new steps", deadline_s=10)
        one.check()
    with open_store(tmp_path) as store:
        assert store.sql("SELECT count(*) FROM spikes").item() >= 2 * (first + 20)


def test_new_rows_change_the_charts_in_place_and_zoom_survives(
    tmp_path, serve, tab, make_run, wait_until
):
    run = make_run("growing", n_steps=100)
    with JournalWriter(journal_path(tmp_path, "growing", 0)) as journal:
        journal.append(run.head())
        journal.append(run.body(range(100)))
        with serve(tmp_path) as url:
            one = tab()
            page = one.open(f"{url}/run?run=growing&every=1")
            expect(page.locator(".st-key-rate-map [data-drawn]")).to_be_visible(timeout=20_000)
            expect(page.locator(".st-key-layer-lines [data-drawn]")).to_be_visible(timeout=20_000)
            n_charts = mark_charts(page)
            zoom(page, "rate-map")
            wait_until(lambda: x_range(page, "rate-map")[0] > 10, what="the zoom")
            zoomed, profile = x_range(page, "rate-map"), drawn(page, "depth-profile")
            for begin in (100, 120, 140):
                journal.append(run.body(range(begin, begin + 20)))
                last = begin + 19
                wait_until(lambda n=last: step_shown(page) == n, what=f"step {last}", deadline_s=8)
            wait_until(lambda: drawn(page, "depth-profile") >= profile + 3, what="three redraws")
            shown = "document.querySelector('.st-key-rate-map .spikewatch-plot')._fullData[0].x"
            wait_until(lambda: page.evaluate(f"{shown}.at(-1)") == 159, what="the new columns")
            kept = [mark for mark in marks(page) if mark is not None]  # the alerts' chart is new
            assert kept == list(range(n_charts)), "a chart's node was replaced"
            assert x_range(page, "rate-map") == zoomed
            one.check()


def test_while_nothing_is_written_no_chart_is_drawn_again(
    tmp_path, serve, tab, make_run, wait_until
):
    make_run("still", n_steps=50).write(tmp_path)
    with serve(tmp_path) as url:
        page = tab().open(f"{url}/run?run=still&every=1")
        expect(page.locator(".st-key-layer-lines [data-drawn]")).to_be_visible(timeout=20_000)
        expect(page.locator(".spikewatch-plot:not([data-drawn])")).to_have_count(0)
        age = page.locator(".st-key-status-strip").get_by_text("last row")

        def counts_after(n_refreshes):
            texts = {age.inner_text()}
            wait_until(
                lambda: texts.add(age.inner_text()) or len(texts) > n_refreshes, what="refreshes"
            )
            return page.evaluate(
                "[...document.querySelectorAll('[data-drawn]')].map(n => n.dataset.drawn)"
            )

        # A chart may be drawn twice while the page finds its layout.
        before = counts_after(2)
        assert counts_after(3) == before


def test_a_paused_page_stays_as_it_is(tmp_path, serve, tab, make_run, wait_until):
    run = make_run("paused", n_steps=50)
    with JournalWriter(journal_path(tmp_path, "paused", 0)) as journal:
        journal.append(run.head())
        journal.append(run.body(range(50)))
        with serve(tmp_path) as url:
            page = tab().open(f"{url}/run?run=paused&live=false&every=1")
            expect(page.get_by_text("paused").first).to_be_visible(timeout=20_000)
            expect(page.locator(".st-key-rate-map [data-drawn]")).to_be_visible(timeout=20_000)
            journal.append(run.body(range(50, 60)))
            live = tab().open(f"{url}/run?run=paused&every=1")
            wait_until(lambda: live.get_by_text("step 59").count(), what="the live page")
            assert step_shown(page) == 49
            page.get_by_test_id("stSidebar").get_by_text("Live").click()
            wait_until(lambda: step_shown(page) == 59, what="the page that goes on")
