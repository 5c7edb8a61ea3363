"""The pages without a browser: what is chosen, and what is shown for it."""

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

from spikewatch.app import opened
from spikewatch.journal import JournalWriter
from spikewatch.metrics import TABLES
from spikewatch.paths import journal_path
from spikewatch.store import open_store


def _run_page():
    from spikewatch.app.views.run import page

    page()


@pytest.fixture(name="show")
def _show(monkeypatch):
    def show(folder, **query):
        monkeypatch.setenv("SPIKEWATCH_DIR", str(folder))
        app = AppTest.from_function(_run_page, default_timeout=60)
        app.query_params.update(query)
        app.run()
        assert not app.exception
        return app

    yield show
    opened._shelf.forget()


def cards(app):
    return {m.label: m.value for m in app.metric}


def rate_of(tables):
    spikes = tables["spikes"].filter(pl.col("step") == pl.col("step").max())
    return spikes["n_spikes"].sum() / (spikes["n_obs"] * spikes["n_neurons"]).sum()


def rewritten(tables, **keys):
    """The same rows under another rank or phase, firing half as often."""
    columns = {name: pl.lit(value) for name, value in keys.items()}
    halved = tables["spikes"].with_columns(pl.col("n_spikes", "n_positive") // 2, **columns)
    return {"spikes": TABLES["spikes"].compute(halved)}


def test_ranks_are_never_mixed_and_can_be_chosen(tmp_path, make_run, show):
    run = make_run("ranks", n_layers=3, n_steps=10)
    first = run.body(range(10))
    second = rewritten(first, rank=1)
    for rank, tables in enumerate((first, second)):
        with JournalWriter(journal_path(tmp_path, "ranks", rank)) as journal:
            journal.append(run.head() | tables if rank == 0 else tables)
    app = show(tmp_path, run="ranks")
    assert cards(app)["Firing rate, all layers"] == f"{100 * rate_of(first):.1f} %"
    app = show(tmp_path, run="ranks", rank="1")
    assert cards(app)["Firing rate, all layers"] == f"{100 * rate_of(second):.1f} %"


def test_training_and_evaluation_are_kept_apart(tmp_path, make_run, show):
    run = make_run("phases", n_layers=3, n_steps=10)
    train = run.body(range(10))
    evaluation = rewritten(train, phase="eval")
    with JournalWriter(journal_path(tmp_path, "phases", 0)) as journal:
        journal.append(run.head() | train)
        journal.append(evaluation)
    assert cards(show(tmp_path, run="phases"))["Firing rate, all layers"] == (
        f"{100 * rate_of(train):.1f} %"
    )
    assert cards(show(tmp_path, run="phases", phase="eval"))["Firing rate, all layers"] == (
        f"{100 * rate_of(evaluation):.1f} %"
    )


def test_too_little_evidence_is_a_dash_and_not_zero(tmp_path, make_run, show):
    make_run("young", n_layers=3, n_steps=3).write(tmp_path)
    app = show(tmp_path, run="young")
    assert cards(app)["Dead neurons, worst layer"] == "–"
    (table,) = [t.value for t in app.dataframe]
    with open_store(tmp_path) as store:
        assert store.sql("SELECT count(dead_frac) FROM spikes").item() == 0
    statuses = {tuple(s) for s in table["status"]}
    assert ("unknown",) in statuses


def test_the_newest_run_is_shown_when_none_is_asked_for(tmp_path, make_run, show):
    make_run("older", n_layers=2, n_steps=50).write(tmp_path)
    make_run("newer", n_layers=2, n_steps=5).write(tmp_path)
    app = show(tmp_path)
    assert app.selectbox(key="run").value == "newer"


def test_a_run_that_is_not_there_is_said_in_words_and_the_newest_is_shown(tmp_path, make_run, show):
    make_run("here", n_layers=2, n_steps=5).write(tmp_path)
    app = show(tmp_path, run="elsewhere")
    assert "no run `elsewhere`" in app.warning[0].value
    assert app.selectbox(key="run").value == "here"
    assert app.metric


def test_the_box_with_every_figure_tells_what_is_stored_of_the_layer(tmp_path, make_run, show):
    make_run("told", n_layers=3, n_steps=10).write(tmp_path)
    with open_store(tmp_path) as store:
        layer = store.sql("SELECT DISTINCT layer FROM spikes ORDER BY 1")["layer"][0]
        known = store.sql(
            "SELECT DISTINCT metric FROM metrics WHERE layer = $layer", {"layer": layer}
        )
    closed = show(tmp_path, run="told", layer=layer)
    opened_box = show(tmp_path, run="told", layer=layer, figures="true")
    assert len(opened_box.dataframe) == len(closed.dataframe) + 1
    table = opened_box.dataframe[-1].value
    assert set(table["metric"]) == set(known["metric"])
    assert table["what it is"].str.len().min() > 10


def test_a_run_of_ternary_weights_alone_is_not_asked_for_spikes(tmp_path, make_run, show):
    run = make_run("ternary", n_layers=3, n_steps=10)
    run.write(tmp_path, kinds=("ternary",), only=("weights",))
    app = show(tmp_path, run="ternary")
    words = " ".join(m.value for m in [*app.markdown, *app.caption])
    assert "No spiking layer" not in words
    assert "Gradient by depth" not in words
    assert "Ternary weights" in words
