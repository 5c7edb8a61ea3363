"""The tables are the catalogue's; older databases grow, and what cannot be ours is refused."""

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings, strategies as st
from polars.testing import assert_frame_equal

from spikewatch.metrics import KEYS, METRICS, RECORDS, TABLES
from spikewatch.metrics.wide import COLUMNS, widen
from spikewatch.store import open_store, schema
from spikewatch.store.connect import open_replica


def columns(con: duckdb.DuckDBPyConnection, name: str) -> list[str]:
    return [row[0] for row in con.execute(f"DESCRIBE {name}").fetchall()]


def test_every_table_of_the_catalogue_has_its_columns():
    con = duckdb.connect()
    schema.ensure(con)
    for name in (*TABLES, *RECORDS):
        assert columns(con, name) == list(schema.FRAMES[name])
    assert columns(con, "wide") == list(COLUMNS)
    assert columns(con, "metrics") == [*(k for k in KEYS if k != "at"), "metric", "value"]


def test_making_it_twice_changes_nothing():
    con = duckdb.connect()
    schema.ensure(con)
    con.execute("INSERT INTO events (run, message) VALUES ('r', 'kept')")
    con.execute("UPDATE progress SET watermark = 7")
    schema.ensure(con)
    assert con.execute("SELECT message FROM events").fetchall() == [("kept",)]
    assert con.execute("FROM progress").fetchall() == [(7,)]


def test_columns_that_an_older_database_lacks_are_added():
    con = duckdb.connect()
    schema.ensure(con)
    con.execute("DROP VIEW wide")
    con.execute("DROP VIEW metrics")
    con.execute("INSERT INTO spikes (run, n_obs) VALUES ('old', 3)")
    con.execute("ALTER TABLE spikes DROP COLUMN mfr")
    con.execute("DROP TABLE weights")
    schema.ensure(con)
    assert set(columns(con, "spikes")) == set(TABLES["spikes"].schema)
    assert columns(con, "weights") == list(TABLES["weights"].schema)
    assert con.execute("SELECT run, n_obs, mfr FROM spikes").fetchall() == [("old", 3, None)]


@pytest.mark.parametrize(
    ("foreign", "found"),
    [
        ("CREATE TABLE mine (x INTEGER)", "the tables mine"),
        ("CREATE TABLE journals (run VARCHAR); CREATE TABLE spikes (mfr VARCHAR)", "spikes.mfr"),
    ],
)
def test_a_database_of_somebody_elses_is_refused(foreign, found):
    con = duckdb.connect()
    con.execute(foreign)
    with pytest.raises(schema.ForeignDatabaseError, match=found):
        schema.ensure(con)


# -- views -----------------------------------------------------------------------------------

KEY_ROWS = st.lists(
    st.tuples(
        st.sampled_from(["train", "eval"]),
        st.integers(0, 3),
        st.sampled_from(["lif1", "lif2", "fc"]),
    ),
    unique=True,
    max_size=6,
)
NUMBER = st.one_of(st.none(), st.integers(0, 9))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_view_wide_is_what_widen_makes_of_the_same_rows(data):
    tables = {}
    for name, declared in TABLES.items():
        rows = [
            {
                "run": "r",
                "rank": 0,
                "phase": phase,
                "step": step,
                "layer": layer,
                "at": None,
                **{
                    c: data.draw(st.binary(min_size=1, max_size=3))
                    if dtype == pl.Binary()
                    else data.draw(NUMBER)
                    for c, dtype in declared.counter_schema.items()
                },
            }
            for phase, step, layer in data.draw(KEY_ROWS)
        ]
        counter_schema = {k: d for k, d in declared.schema.items() if k not in METRICS}
        tables[name] = declared.compute(pl.DataFrame(rows, schema=counter_schema, strict=False))
    losses = [
        {"run": "r", "rank": 0, "phase": "train", "step": i, "name": "loss", "value": value}
        for i, value in enumerate(data.draw(st.lists(st.one_of(st.none(), st.floats()))))
    ]
    tables["scalars"] = pl.DataFrame(losses, schema=RECORDS["scalars"])

    con = open_replica()
    for name, rows in tables.items():
        con.register("incoming", rows)
        con.execute(
            f"INSERT INTO {name} SELECT * REPLACE (silent::BIT AS silent) FROM incoming"
            if "silent" in rows.columns
            else f"INSERT INTO {name} FROM incoming"
        )
        con.unregister("incoming")
    view = pl.DataFrame(con.sql("FROM wide").to_arrow_table()).cast(COLUMNS)
    con.close()
    order = ["phase", "step", "layer"]
    assert_frame_equal(view.sort(order), widen(tables).sort(order))


def test_a_key_that_comes_twice_does_not_multiply_in_wide(tmp_path, write, rows_of):
    twice = {name: rows_of(name, *[{"step": 1}] * 30) for name in TABLES}
    write(twice)
    with open_store(tmp_path) as store:
        assert store.sql("SELECT count(*) FROM wide").item() == 1


def test_the_view_metrics_has_a_row_for_each_metric_that_has_a_value(tmp_path, write, rows_of):
    full = {"n_obs": 10, "n_neurons": 4, "n_spikes": 8}
    write(
        {
            "spikes": rows_of("spikes", {"step": 3, **full}, {"step": 4}),
            "weights": rows_of("weights", {"step": 3, "n_weights": 4, "n_weight_zero": 1}),
        }
    )
    with open_store(tmp_path) as store:
        long = store.sql("SELECT step, metric, value FROM metrics ORDER BY metric")
    assert set(long["metric"]) <= set(METRICS)
    assert long.filter(metric="mfr").rows() == [(3, "mfr", 0.2)]
    assert long.filter(metric="weight_zero_frac").rows() == [(3, "weight_zero_frac", 0.25)]
    assert long.filter(step=4).height == 0
