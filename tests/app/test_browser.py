"""The page in a real browser, on a finished run."""

import json
import urllib.request

import pytest
from playwright.sync_api import expect

from spikewatch.app.alerting import firing
from spikewatch.store import open_store


pytestmark = pytest.mark.browser

RUN = "/run?run=resnet-lif"


def metric_cards(page):
    expect(page.get_by_test_id("stMetric").first).to_be_visible(timeout=20_000)
    return {
        card.get_by_test_id("stMetricLabel").inner_text().strip(): card.get_by_test_id(
            "stMetricValue"
        ).inner_text()
        for card in page.get_by_test_id("stMetric").all()
    }


def grid_rows(page, key):
    """The text of a table's cells; the table is a canvas with the text beside it for readers."""
    cells = page.locator(f".st-key-{key} [role=gridcell]")
    expect(cells.first).to_be_attached(timeout=20_000)
    return page.eval_on_selector_all(
        f".st-key-{key} [role=row]",
        "rows => rows.map(r => [...r.querySelectorAll('[role=gridcell]')].map(c => c.textContent))",
    )


def click_row(page, table, row):
    """Click the selection box of a row (0 is the first below the header)."""
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    page.mouse.click(box["x"] + 15, box["y"] + 35 * (row + 1) + 17)


def all_drawn(page, n):
    expect(page.locator(".spikewatch-plot[data-drawn]")).to_have_count(n, timeout=30_000)


def test_the_figures_on_the_page_are_those_of_the_store(url, tab, runs):
    page = tab().open(url + RUN)
    cards = metric_cards(page)
    with open_store(runs) as store:
        dead, rate = store.sql(
            "SELECT max(dead_frac), sum(n_spikes) / sum(n_obs * n_neurons) FROM spikes "
            "WHERE step = (SELECT max(step) FROM spikes)"
        ).row(0)
        zero = store.sql(
            "SELECT max(weight_zero_frac) FROM weights WHERE step = (SELECT max(step) FROM weights)"
        ).item()
        loss = store.sql("SELECT value FROM scalars WHERE name = 'loss' ORDER BY step DESC LIMIT 1")
    assert cards["Dead neurons, worst layer"] == f"{100 * dead:.1f} %"
    assert cards["Firing rate, all layers"] == f"{100 * rate:.1f} %"
    assert cards["Zero weights, worst layer"] == f"{100 * zero:.1f} %"
    assert cards["loss"] == f"{loss.item():.4g}"


def test_the_table_shows_the_latest_rows_of_the_store_worst_first(url, tab, runs):
    page = tab().open(url + RUN)
    rows = [r for r in grid_rows(page, "layer-table") if r]
    with open_store(runs) as store:
        latest = store.sql(
            "SELECT layer, mfr, dead_frac FROM spikes WHERE step = (SELECT max(step) FROM spikes)"
        )
    shown = {row[1]: (float(row[2]), float(row[4])) for row in rows if row[2]}
    assert shown.keys() == set(latest["layer"])
    for name, rate, dead in latest.rows():
        assert shown[name] == pytest.approx((100 * rate, 100 * dead), rel=1e-12)
    assert rows[0][1] == "backbone.stage2.block3.lif", "the dying layer is on top"


def test_the_firing_alerts_say_what_where_since_when_and_what_to_try(url, tab, runs):
    page = tab().open(url + RUN)
    with open_store(runs) as store:
        fired = firing(store.sql("SELECT * FROM alerts ORDER BY rowid"))
    expect(page.get_by_text("Firing now")).to_be_visible(timeout=20_000)
    card = page.locator(".st-key-alerts")
    for alert in fired.iter_rows(named=True):
        expect(card.get_by_text(alert["rule"], exact=True).first).to_be_visible()
        expect(card.get_by_text(f"since step {alert['since_step']}").first).to_be_visible()
    expect(card.get_by_text("Try:").first).to_be_visible()
    expect(card.get_by_text("+ 1", exact=True).first).to_be_visible()  # that follows from a root


def test_the_heatmap_holds_the_stores_own_values(url, tab, runs):
    page = tab().open(url + RUN)
    all_drawn(page, 6)
    with open_store(runs) as store:
        want = store.sql("SELECT mfr FROM spikes WHERE layer LIKE '%stage1.block0%' ORDER BY step")
    shown = page.evaluate(
        "Array.from(document.querySelector('.st-key-rate-map .spikewatch-plot')"
        "._fullData[0].customdata[0])"
    )
    assert shown == pytest.approx(want["mfr"].to_list(), rel=1e-6)


def test_every_page_asks_this_machine_only_and_has_no_error(url, tab, runs):
    for path in ("/", RUN, f"{RUN}&layer=head.bitlinear", "/run?run=no-such-run"):
        one = tab()
        page = one.open(url + path)
        expect(page.get_by_test_id("stStatusWidget")).to_have_count(0, timeout=20_000)
        page.wait_for_function("document.querySelector('[data-testid=stMarkdown]')")
        if path.startswith(RUN):
            page.wait_for_function("document.querySelectorAll('[data-drawn]').length >= 6")
        one.check()
        assert one.asked


def test_a_run_is_opened_from_the_list_by_its_row(url, tab):
    page = tab().open(url)
    cells = page.locator("[data-testid=stDataFrame] canvas").first
    expect(cells).to_be_visible(timeout=20_000)
    click_row(page, cells, 0)
    expect(page.get_by_role("heading", name="resnet-lif")).to_be_visible(timeout=20_000)
    assert "run=resnet-lif" in page.url


def test_selecting_a_row_of_the_table_selects_the_layer_and_writes_it_into_the_address(url, tab):
    one = tab()
    page = one.open(url + RUN)
    all_drawn(page, 6)
    table = page.locator(".st-key-layer-table canvas").first
    click_row(page, table, 1)
    expect(page.locator(".st-key-ternary .spikewatch-plot[data-drawn]")).to_be_visible(
        timeout=20_000
    )
    page.wait_for_url("**layer=head.bitlinear**")
    one.check()


def test_the_address_chooses_the_layer_and_the_window(url, tab):
    page = tab().open(f"{url}{RUN}&layer=head.ternary&window=200")
    expect(page.locator(".st-key-ternary .spikewatch-plot[data-drawn]")).to_be_visible(
        timeout=20_000
    )
    steps = page.evaluate(
        "Array.from(document.querySelector('.st-key-rate-map .spikewatch-plot')._fullData[0].x)"
    )
    assert (steps[0], steps[-1]) == (100, 299)
    assert "layer=head.ternary" in page.url


@pytest.mark.parametrize(("scheme", "width"), [("light", 400), ("dark", 1600)])
def test_nothing_is_wider_than_the_screen_in_light_and_dark(url, tab, scheme, width):
    one = tab(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = one.open(url + RUN)
    all_drawn(page, 6)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for box in page.locator(".spikewatch-plot").all():
        edges = box.bounding_box()
        assert edges["x"] >= 0
        assert edges["x"] + edges["width"] <= width
    text, back = page.evaluate(
        "[...['color', 'backgroundColor']].map("
        "k => getComputedStyle(document.querySelector('.stApp'))[k])"
    )
    axis = page.evaluate(
        "getComputedStyle(document.querySelector('.st-key-rate-map .xtick text')).fill"
    )
    assert axis == text != back, "charts are written in the theme's own colour"
    one.check()


def test_health_tells_the_state_of_the_store(url):
    with urllib.request.urlopen(f"{url}/healthz", timeout=10) as reply:
        said = json.load(reply)
    assert (said["ok"], said["runs"], said["running"]) == (True, 1, 0)
    assert said["firing"] > 0
