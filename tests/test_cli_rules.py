"""The commands about rules as a user meets them: rules, replay, tail, report."""

import json
import re
from html.parser import HTMLParser

import polars as pl
import pytest

import spikewatch
from spikewatch.cli import main


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory, train_digits):
    folder = tmp_path_factory.mktemp("runs")
    train_digits(folder, "well", n_steps=30)
    train_digits(folder, "ill", ill="dead-neurons", n_steps=30)
    return folder


@pytest.fixture(name="command")
def _command(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("SPIKEWATCH_RULES", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        code = main([str(a) for a in argv])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(name="rules")
def _rules(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(
        'mute = ["amplitude-*"]\n[[change]]\nname = "low-rate"\nfor = 9\n'
        '[[rule]]\nname = "busy"\nexpr = "mfr > 0.01"\nsummary = "It fires"\n',
        "utf-8",
    )
    return path


def test_list_marks_what_a_file_adds_changes_and_mutes(command, rules):
    code, out, _ = command("rules", "list", "--rules", rules)
    assert code == 0
    assert re.search(r"^\+ busy +warning +It fires", out, re.MULTILINE)
    assert re.search(r"^~ low-rate", out, re.MULTILINE)
    assert "muted: amplitude-flipped, amplitude-too-large, amplitude-too-small" in out
    code, out, _ = command("rules", "list", "--json")
    first = json.loads(out)[0]
    assert (first["name"], first["for"]) == ("dead-neurons", 10)


def test_check_says_that_a_file_is_right_or_tells_every_mistake(command, rules, tmp_path):
    code, out, _ = command("rules", "check", rules)
    assert (code, f"{rules} is right" in out) == (0, True)
    rules.write_text(rules.read_text().replace("mfr", "mrf").replace("low-rate", "low-rat"))
    code, out, err = command("rules", "check", rules)
    assert (code, out) == (2, "")
    assert "2 mistakes" in err
    code, _, err = command("rules", "check", tmp_path / "none.toml")
    assert code == 2
    assert "no such file" in err


def test_explain_says_all_there_is_and_suggests_a_name(command):
    code, out, _ = command("rules", "explain", "dead-layer")
    assert code == 0
    for part in (
        "fires when",
        "ends when",
        "dead_frac: Share of neurons",
        "Hanley",
        "follows from",
    ):
        assert part in out
    code, _, err = command("rules", "explain", "dead-layr")
    assert code == 2
    assert "Did you mean 'dead-layer'?" in err


def test_unit_tests_pass_fail_or_are_wrong(command, rules, tmp_path):
    tests = tmp_path / "rules_test.toml"
    text = 'rules = "rules.toml"\n[[test]]\nname = "t"\nfires = ["busy on a"]\n'
    tests.write_text(text + '[test.layers.a]\nmfr = "0.5*5"\n')
    assert command("rules", "test", tests)[:2] == (0, "passed  t\n1 of 1 tests passed\n")
    tests.write_text(text + '[test.layers.a]\nmfr = "0*5"\n')
    code, out, _ = command("rules", "test", tests)
    assert code == 1
    assert "busy on a does not fire, and should" in out
    tests.write_text(text)
    code, _, err = command("rules", "test", tests)
    assert code == 2
    assert "it has no layers" in err


@pytest.mark.parametrize("argv", [("rules",), ("rules", "lst"), ("rules", "check")])
def test_misuse_exits_2_with_a_usage_line(command, capsys, argv):
    with pytest.raises(SystemExit) as caught:
        command(*argv)
    assert caught.value.code == 2
    assert "usage: spikewatch rules" in capsys.readouterr().err


def test_replay_equals_what_fired(command, folder):
    code, out, _ = command("replay", "ill", "--dir", folder, "--all", "--json")
    with spikewatch.open_store(folder) as store:
        live = store.sql("SELECT * FROM alerts WHERE run = 'ill'")
    shown = pl.DataFrame(json.loads(out), infer_schema_length=None)
    key = ["phase", "step", "layer", "rule", "state", "root_layer"]
    assert code == 1
    assert sorted(map(str, shown.select(key).rows())) == sorted(map(str, live.select(key).rows()))


def test_replay_by_other_rules_tells_lines_and_what_was_never_judged(command, folder, tmp_path):
    rules = tmp_path / "r.toml"
    rules.write_text(
        'mute = ["*"]\n[[rule]]\nname = "a"\nexpr = "mfr >= 0"\n'
        '[[rule]]\nname = "b"\nexpr = "mfr > 0"\nlayers = ["nowhere"]\n'
    )
    code, out, _ = command("replay", "well", "--dir", folder, "--rules", rules)
    assert code == 1
    assert "WARNING a firing on 'encoder_lif' since step 0" in out
    assert "3 alerts would have been told" in out
    assert "note: rule 'b' was never judged" in out
    rules.write_text('mute = ["*"]\n[[rule]]\nname = "a"\nexpr = "mfr < 0"\n')
    code, out, _ = command("replay", "well", "--dir", folder, "--rules", rules)
    assert code == 0
    assert "0 alerts" in out


def test_tail_shows_layers_and_alerts_once_where_there_is_no_terminal(command, folder):
    code, out, _ = command("tail", "ill", "--dir", folder)
    assert code == 1
    assert "hidden_lif" in out
    assert "CRITICAL dead-layer on 'hidden_lif'" in out
    code, out, _ = command("tail", "well", "--dir", folder, "--once")
    assert code == 0
    assert "no alert fires now" in out


class Page(HTMLParser):
    """What a page would fetch or run, and its text."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.tags, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [v for k, v in attrs if k in ("src", "href", "action", "data")]

    def handle_data(self, data):
        self.text += data


def test_the_report_is_one_file_that_needs_nothing_else(command, folder, tmp_path):
    code, out, _ = command("report", "ill", "--dir", folder, "-o", "ill.html")
    assert code == 0
    assert out.startswith("ill.html")
    page = Page((tmp_path / "ill.html").read_text("utf-8"))
    assert page.fetched == []
    assert "script" not in page.tags
    for part in ("Timeline", "dead-layer", "Likely:", "Try:", "that follow", "Mean firing rate"):
        assert part in page.text
    assert page.tags.count("svg") >= 6


def test_a_healthy_report_says_so_and_is_named_after_its_run(command, folder, tmp_path):
    assert command("report", "well", "--dir", folder)[0] == 0
    assert "✓ healthy by" in (tmp_path / "well.html").read_text("utf-8")


def test_a_report_that_cannot_be_written_is_told(command, folder):
    code, _, err = command("report", "well", "--dir", folder, "-o", "no/such/place.html")
    assert code == 2
    assert "Name another file" in err


@pytest.mark.parametrize("name", ["replay", "tail", "report"])
def test_a_run_that_is_not_there_is_told_with_a_suggestion(command, folder, name):
    code, _, err = command(name, "wel", "--dir", folder)
    assert code == 2
    assert "Did you mean 'well'?" in err
