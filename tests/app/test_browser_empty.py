"""What the page says when there is nothing to show, or when the store breaks under it."""

import json
import shutil
import urllib.error
import urllib.request

import pytest
from playwright.sync_api import expect


pytestmark = pytest.mark.browser


def test_a_folder_that_does_not_exist_yet_fills_by_itself(tmp_path, serve, tab, make_run):
    folder = tmp_path / "later"
    with serve(folder) as url:
        one = tab()
        page = one.open(url)
        expect(page.get_by_text("There is no runs folder yet")).to_be_visible(timeout=20_000)
        expect(page.get_by_text(str(folder))).to_be_visible()
        folder.mkdir()
        expect(page.get_by_text("No runs yet")).to_be_visible(timeout=10_000)
        make_run("first", n_layers=3, n_steps=10).write(folder)
        expect(page.get_by_text("1 run", exact=True)).to_be_visible(timeout=10_000)
        one.check()


def test_the_run_page_of_an_empty_folder_opens_the_first_run_that_comes(
    tmp_path, serve, tab, make_run
):
    with serve(tmp_path) as url:
        one = tab()
        page = one.open(f"{url}/run")
        expect(page.get_by_text("No runs yet")).to_be_visible(timeout=20_000)
        make_run("first", n_layers=3, n_steps=10).write(tmp_path)
        expect(page.get_by_role("heading", name="first")).to_be_visible(timeout=15_000)
        page.wait_for_url("**run=first**")
        one.check()


@pytest.mark.parametrize(
    ("only", "kinds", "says"),
    [
        (("scalars",), (), "No spiking layer has been observed"),
        (("spikes",), ("spiking",), "No gradient has been seen"),
        (("spikes",), ("spiking",), "Nothing was logged. Call"),
    ],
)
def test_a_panel_without_data_says_what_to_do(tmp_path, serve, tab, make_run, only, kinds, says):
    make_run("part", n_steps=20).write(tmp_path, only=only, kinds=kinds)
    with serve(tmp_path) as url:
        one = tab()
        page = one.open(f"{url}/run?run=part")
        expect(page.get_by_text(says)).to_be_visible(timeout=20_000)
        one.check()


def test_a_run_without_rows_says_when_they_come(tmp_path, serve, tab, make_run):
    make_run("young", n_steps=0).write(tmp_path)
    with serve(tmp_path) as url:
        one = tab()
        page = one.open(f"{url}/run?run=young")
        expect(page.get_by_text("This run has no rows yet")).to_be_visible(timeout=20_000)
        one.check()


def test_a_folder_that_vanishes_is_told_in_plain_words_and_may_come_back(
    tmp_path, serve, tab, make_run
):
    folder = tmp_path / "runs"
    make_run("gone", n_layers=3, n_steps=10).write(folder)
    with serve(folder) as url:
        one = tab()
        page = one.open(f"{url}/run?run=gone")
        expect(page.get_by_test_id("stMetric").first).to_be_visible(timeout=20_000)
        shutil.rmtree(folder)
        expect(page.get_by_text("There is no runs folder yet")).to_be_visible(timeout=15_000)
        make_run("gone", n_layers=3, n_steps=10).write(folder)
        expect(page.get_by_test_id("stMetric").first).to_be_visible(timeout=15_000)
        one.check()


def test_a_store_that_cannot_be_read_is_told_in_plain_words(tmp_path, serve, tab):
    broken = tmp_path / "broken.duckdb"
    broken.write_bytes(b"this is no database" * 500)
    with serve(broken) as url:
        one = tab()
        page = one.open(url)
        expect(page.get_by_text("The runs cannot be read just now")).to_be_visible(timeout=20_000)
        assert page.get_by_text("Traceback").count() == 0
        one.check()
        with pytest.raises(urllib.error.HTTPError) as answer:
            urllib.request.urlopen(f"{url}/healthz", timeout=10)
        with answer.value as reply:
            assert reply.status == 503
            assert json.load(reply)["ok"] is False
