"""What users may ask, what they may not, and what they are told."""

import pytest

from spikewatch.errors import StoreError
from spikewatch.store import open_store


@pytest.fixture
def store(tmp_path, write, step_tables):
    write(*(step_tables(i) for i in range(3)))
    with open_store(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM spikes",
        "FROM spikes",
        "WITH s AS (FROM spikes) SELECT count(*) FROM s;",
        "DESCRIBE spikes",
        "SHOW TABLES",
        "SUMMARIZE scalars",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
        "PRAGMA table_info('spikes')",
        "PIVOT spikes ON layer USING sum(n_spikes) GROUP BY step",
        "-- a comment\nSELECT 1; -- another",
    ],
)
def test_statements_that_read_are_run(store, query):
    assert store.sql(query).height > 0


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM spikes",
        "INSERT INTO events (run) VALUES ('x')",
        "WITH gone AS (DELETE FROM spikes RETURNING run) SELECT * FROM gone",
        "EXPLAIN ANALYZE DELETE FROM spikes",
        "DROP TABLE spikes",
        "CREATE TEMP TABLE t (x INTEGER)",
        "COPY spikes TO 'spikes.csv'",
        "ATTACH 'other.duckdb'",
        "SET enable_external_access = true",
        "SET threads = 1",
        "PRAGMA memory_limit = '1GB'",
        "CALL pragma_version()",
        "CHECKPOINT",
        "BEGIN",
        "SELECT * FROM read_csv('/etc/hosts')",
        "SELECT * FROM 'spikes.parquet'",
        "SELECT * FROM glob('/*')",
        "SELECT 1; SELECT 2",
        "",
        "  -- nothing",
    ],
)
def test_statements_that_do_anything_else_are_refused_and_change_nothing(store, query, tmp_path):
    with pytest.raises(StoreError):
        store.sql(query)
    assert store.sql("SELECT count(*) FROM spikes").item() == 6
    assert not (tmp_path / "spikes.csv").exists()


def test_python_variables_are_no_tables(store):
    spikes_frame = store.sql("FROM spikes")
    assert spikes_frame.height
    with pytest.raises(StoreError, match="does not exist"):
        store.sql("FROM spikes_frame")


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("SELECT mfrr FROM spikes", r'(?s)"mfrr" not found.*Candidate bindings:.*"mfr"'),
        ("FROM spike", r"(?s)spike does not exist.*Tables and views: alerts, .*spikes.*wide"),
        ("SELEC 1", r'syntax error at or near "SELEC"'),
        ("SELECT max(at) FROM spikes", r'(?s)syntax error.*write the column as "at"'),
        ("SELECT 1; SELECT 2", r"One statement at a time.*found 2"),
        ("DELETE FROM spikes", r"Only statements that read.*DELETE.*SELECT"),
        ("SELECT ?::INTEGER", r"Values were not provided"),
        ("SELECT 1 AS a, 2 AS a", r"more than one column named a.*AS a_a"),
        ("SELECT INTERVAL 1 DAY AS i", r"(?s)INTERVAL.*epoch"),
    ],
)
def test_errors_say_what_is_wrong_and_what_there_is(store, query, told):
    with pytest.raises(StoreError, match=told):
        store.sql(query)


def test_parameters_go_by_place_or_by_name(store):
    by_place = store.sql("SELECT count(*) FROM spikes WHERE step >= ? AND layer = ?", [1, "lif1"])
    by_name = store.sql("SELECT count(*) FROM spikes WHERE step >= $from", {"from": 1})
    assert (by_place.item(), by_name.item()) == (2, 4)


def test_sums_of_counts_are_whole_numbers(store):
    found = store.sql("SELECT sum(n_spikes) AS n, sum(n_spikes)::HUGEINT << 70 AS huge FROM spikes")
    assert str(found.schema["n"]) == "Int64"
    assert found["n"].item() == 24
    assert int(found["huge"].item()) == 24 << 70
