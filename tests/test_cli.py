"""The commands as a user meets them: what they print, where, and what they exit with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

import spikewatch
from spikewatch.cli import main


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory, train_digits):
    """A runs folder with a healthy run and, newer, an ill one."""
    folder = tmp_path_factory.mktemp("runs")
    train_digits(folder, "well", n_steps=20)
    train_digits(folder, "ill", ill="ternary-collapse", n_steps=20)
    return folder


@pytest.fixture(name="spikewatch_command")
def _spikewatch_command(capsys):
    def run(*argv):
        code = main([str(a) for a in argv])
        return code, *capsys.readouterr()

    return run


def command_line(*argv, code=""):
    run = f"from spikewatch.cli import main\nsys.exit(main({[str(a) for a in argv]!r}))"
    return [sys.executable, "-c", f"import sys; {code}\n{run}"]


def test_ls_names_the_runs_newest_first_with_their_alerts(spikewatch_command, folder):
    code, out, _ = spikewatch_command("ls", folder)
    assert code == 0
    assert out.index("ill") < out.index("well")
    assert "finished" in out
    assert "critical" in out
    assert out.endswith("2 rows\n")


def test_ls_json_is_what_the_store_says(spikewatch_command, folder):
    code, out, _ = spikewatch_command("ls", folder, "--json")
    runs = json.loads(out)
    assert code == 0
    assert [r["run"] for r in runs] == ["ill", "well"]
    assert runs[1]["n_fired_critical"] == 0 < runs[0]["n_fired_critical"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize(
    "argv", [["ls"], ["query"], ["rules", "explain", "dead-layer"], ["tail", "well", "--once"]]
)
def test_what_a_terminal_cannot_show_is_no_error(folder, encoding, argv):
    environment = os.environ | {"PYTHONIOENCODING": encoding, "SPIKEWATCH_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-m", "spikewatch", *argv], env=environment, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?" in done.stdout


def test_a_closed_output_changes_no_exit_code(folder):
    code = "import os, sys; os.close(1); sys.stdout = None"
    done = subprocess.run(
        command_line("check", "ill", "--dir", folder, code=code), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, "")


def test_a_fault_of_ours_is_no_alert(folder):
    code = "import spikewatch.store as s; s.open_store = None"
    done = subprocess.run(
        command_line("check", "ill", "--dir", folder, code=code), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "TypeError" in done.stderr


@pytest.mark.parametrize("content", [b"", b"SPKWJNL1" + b"x" * 5000])
def test_a_run_of_which_nothing_can_be_read_is_not_called_missing(
    spikewatch_command, tmp_path, content
):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "rank-0.journal").write_bytes(content)
    for argv in (["check"], ["check", "broken"], ["report", "broken"], ["replay"]):
        code, _, err = spikewatch_command(*argv, "--dir", tmp_path)
        assert code == 2
        assert "Of run 'broken' nothing can be read" in err
    code, out, _ = spikewatch_command("ls", tmp_path)
    assert code == 0
    assert "Of run 'broken' nothing can be read" in out


def test_ls_of_an_empty_folder_says_so(spikewatch_command, tmp_path):
    code, out, _ = spikewatch_command("ls", tmp_path)
    assert (code, out) == (0, f"No runs in {tmp_path} yet.\n")


def test_query_prints_every_row_and_column_whole(spikewatch_command, folder):
    sql = "SELECT repeat('x', 300) AS long, * EXCLUDE (silent) FROM spikes"
    code, out, _ = spikewatch_command("query", sql, "--dir", folder)
    with spikewatch.open_store(folder) as store:
        expected = store.sql(sql)
    assert code == 0
    assert "…" not in out
    assert out.count("x" * 300) == expected.height > 50
    assert all(name in out for name in expected.columns)
    assert out.endswith(f"{expected.height} rows\n")


def test_query_gives_the_same_rows_as_json_csv_and_parquet(spikewatch_command, folder, tmp_path):
    sql = "SELECT layer, step, mfr FROM spikes WHERE run = 'well' ORDER BY ALL"
    with spikewatch.open_store(folder) as store:
        expected = store.sql(sql)
    as_json = spikewatch_command("query", sql, "--dir", folder, "--json")[1]
    as_csv = spikewatch_command("query", sql, "--dir", folder, "--csv")[1]
    path = tmp_path / "rows.parquet"
    assert spikewatch_command("query", sql, "--dir", folder, "--parquet", path)[0] == 0
    assert json.loads(as_json) == expected.to_dicts()
    assert pl.read_csv(as_csv.encode()).equals(expected)
    assert pl.read_parquet(path).equals(expected)


def test_lists_and_bitmaps_can_be_printed_in_every_form(spikewatch_command, folder):
    sql = "SELECT edges, counts, (SELECT max(silent) FROM spikes) AS bits FROM histograms LIMIT 1"
    with spikewatch.open_store(folder) as store:
        bits = store.sql(sql)["bits"].bin.encode("hex").item()
    assert len(bits) == 96 / 4
    for form in ([], ["--json"], ["--csv"]):
        code, out, err = spikewatch_command("query", sql, "--dir", folder, *form)
        assert (code, err) == (0, "")
        assert bits in out


def test_query_reads_its_statement_from_stdin(spikewatch_command, folder, monkeypatch, tmp_path):
    (tmp_path / "question.sql").write_text("SELECT 6 * 7 AS answer")
    with (tmp_path / "question.sql").open() as question:
        monkeypatch.setattr("sys.stdin", question)
        code, out, _ = spikewatch_command("query", "-", "--dir", folder, "--csv")
    assert (code, out) == (0, "answer\n42\n")


def test_query_without_a_statement_teaches_every_table_and_metric(spikewatch_command):
    from spikewatch.metrics import METRICS, RECORDS, TABLES

    code, out, _ = spikewatch_command("query")
    assert code == 0
    for name in (*TABLES, *METRICS, *RECORDS):
        assert name in out
    assert METRICS["mfr"].meaning in out


def test_check_judges_the_newest_run_and_the_one_that_is_named(spikewatch_command, folder):
    assert spikewatch_command("check", "--dir", folder)[0] == 1
    code, out, _ = spikewatch_command("check", "well", "--dir", folder)
    assert code == 0
    assert "healthy" in out
    code, out, _ = spikewatch_command("check", "ill", "--dir", folder)
    assert code == 1
    assert "ternary-collapse on 'ternary'" in out


def test_a_run_may_be_named_by_its_folder(spikewatch_command, folder):
    assert spikewatch_command("check", folder / "well")[0] == 0
    assert spikewatch_command("check", folder / "ill")[0] == 1
    assert spikewatch_command("check", folder)[0] == 1


def test_check_by_other_rules_and_other_severities(spikewatch_command, folder, tmp_path):
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "strict"\nexpr = "mfr > 0"\nseverity = "info"\n')
    check = ("check", "well", "--dir", folder, "--rules", rules)
    assert spikewatch_command(*check)[0] == 0
    code, out, _ = spikewatch_command(*check, "--fail-on", "info", "--json")
    verdict = json.loads(out)
    assert code == verdict["exit_code"] == 1
    assert {row["rule"] for row in verdict["fired"]} == {"strict"}


def test_export_writes_event_files(spikewatch_command, folder, tmp_path):
    code, out, _ = spikewatch_command("export", folder / "well", "--tensorboard", tmp_path)
    assert code == 0
    assert "points" in out
    assert list(tmp_path.rglob("events.out.tfevents.*"))


MISUSES = {
    "no such command": (["chek"], "Did you mean 'check'?"),
    "no such run": (["check", "wel", "--dir", "{folder}"], "Did you mean 'well'?"),
    "no such folder": (["ls", "{folder}/nowhere"], "nowhere"),
    "show of no folder": (["show", "{folder}/nowhere"], "nowhere"),
    "wrong SQL": (["query", "SELEC 1", "--dir", "{folder}"], "SELEC"),
    "no such column": (["query", "SELECT mfrr FROM spikes", "--dir", "{folder}"], "mfr"),
    "writing SQL": (["query", "DELETE FROM spikes", "--dir", "{folder}"], "read"),
    "no rules": (["check", "well", "--dir", "{folder}", "--rules", "{folder}/no.toml"], "no.toml"),
    "parquet nowhere": (
        ["query", "SELECT 1", "--dir", "{folder}", "--parquet", "{folder}/a/b/c.parquet"],
        "c.parquet",
    ),
    "no such illness": (["demo", "--headless", "--ill", "dead-neuron"], "'dead-neurons'"),
}


@pytest.mark.parametrize("case", MISUSES)
def test_misuse_is_told_on_stderr_and_exits_with_2(spikewatch_command, folder, case):
    argv, hint = MISUSES[case]
    code, out, err = spikewatch_command(*[a.format(folder=folder) for a in argv])
    assert (code, out) == (2, "")
    assert err.startswith("spikewatch: ")
    assert hint in err
    assert "Traceback" not in err


def test_nothing_asked_prints_the_help_and_exits_with_2(spikewatch_command):
    code, out, _ = spikewatch_command()
    assert code == 2
    for command in ("show", "ls", "query", "check", "demo", "export"):
        assert command in out


@pytest.mark.parametrize("command", ["show", "ls", "query", "check", "demo", "export"])
def test_the_help_of_each_command_teaches_by_example(capsys, command):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert f"  spikewatch {command}" in out.partition("examples:")[2]


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"spikewatch {spikewatch.__version__}\n"


def test_reading_commands_load_neither_torch_nor_the_screen(folder):
    heavy = "{m for m in sys.modules} & {'torch', 'streamlit', 'plotly', 'sklearn'}"
    script = (
        "import sys\nfrom spikewatch.cli import main\n"
        f"for argv in (['ls', {str(folder)!r}], ['query', 'SELECT 1', '--dir', {str(folder)!r}],"
        f" ['check', 'well', '--dir', {str(folder)!r}]): assert main(argv) == 0\n"
        f"print({heavy} or 'light')"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "light"


def test_who_stops_reading_ends_the_command_without_a_traceback(folder):
    sql = "SELECT * FROM range(200000)"
    # Unbuffered, Python takes the short write to a pipe that broke for a whole one.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        command_line("query", sql, "--dir", folder, "--csv"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout.readline() == "range\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_a_full_disk_behind_stdout_is_an_error_of_one_line(folder):
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(command_line("query"), stdout=full, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == 2
    assert ran.stderr.startswith("spikewatch: ")
    assert "Traceback" not in ran.stderr


def test_show_without_the_app_s_packages_says_what_to_install(folder):
    blocked = "sys.modules['streamlit'] = None"
    ran = subprocess.run(command_line("show", folder, code=blocked), capture_output=True, text=True)
    assert ran.returncode == 2
    assert "pip install 'spikewatch[app]'" in ran.stderr


def test_show_serves_until_ctrl_c(folder):
    import urllib.request

    with subprocess.Popen(
        command_line("show", folder, "--no-browser"), stdout=subprocess.PIPE, text=True
    ) as process:
        url = process.stdout.readline().split()[0]
        with urllib.request.urlopen(f"{url}/healthz", timeout=10) as answer:
            assert json.load(answer)["runs"] == 2
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.wait(20) == 0
        assert time.monotonic() - began < 10
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=2)


def test_a_port_that_is_taken_is_refused_when_asked_for_and_passed_over_otherwise():
    import socket

    from spikewatch.serving import free_port

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(spikewatch.SpikewatchError, match="--port"):
            free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", port) == port
    assert free_port("127.0.0.1", None) >= 8501
