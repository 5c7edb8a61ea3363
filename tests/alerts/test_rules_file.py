from pathlib import Path

import pytest

from spikewatch.alerts.loading import load_rules
from spikewatch.alerts.rule import Rule
from spikewatch.errors import RuleError


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "rules.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def rule(line: str, *, name: str = "mine", expr: str = "mfr > 0.5") -> str:
    return f'[[rule]]\nname = "{name}"\nexpr = "{expr}"\n{line}\n'


def test_a_file_adds_to_the_shipped_rules_replaces_by_name_and_mutes(write):
    path = write(
        'mute = ["low-rate"]\n'
        + rule('for = 4\ntry = "this"\nlayers = "enc.*"\nactions = ["stop"]')
        + rule("", name="dead-neurons")
    )
    rules = {r.name: r for r in load_rules(path)}
    assert rules["mine"] == Rule(
        name="mine",
        expr="mfr > 0.5",
        for_steps=4,
        advice="this",
        layers=("enc.*",),
        actions=("stop",),
    )
    assert rules["dead-neurons"].expr == "mfr > 0.5"
    assert "low-rate" not in rules
    assert len(rules) == len(load_rules())  # one added, one left out


def test_a_file_with_a_byte_order_mark_and_windows_lines_is_read(write):
    path = write(b"\xef\xbb\xbf" + rule("").replace("\n", "\r\n").encode())
    assert any(r.name == "mine" for r in load_rules(path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[rule]\nname = 3", ["not TOML", "line 1"]),
        ("", ["holds no rule", "[[rule]]"]),
        ("# nothing yet\n", ["holds no rule"]),
        (b"name = '\xff'", ["not UTF-8", "0xff"]),
        ("rules = []", ["no key 'rules'", "Did you mean 'rule'?"]),
        ("rule = {name = 'x'}", ["[[rule]]"]),
        ("mute = 'low-rate'", ["`mute`", "list of names"]),
        ("mute = ['lowrate']", ["'lowrate'", "Did you mean 'low-rate'?"]),
        (rule('mute = ["x"]'), ["'mine'", "top of the file"]),
        ("[[rule]]\nexpr = 'mfr > 1'", ["rule 1", "no `name`"]),
        ("[[rule]]\nname = 'x'", ["rule 'x'", "no `expr`"]),
        (rule("") + rule(""), ["'mine'", "twice"]),
        (rule("severty = 'info'"), ["'mine'", "no key 'severty'", "Did you mean 'severity'?"]),
        (rule("for_steps = 3"), ["no key 'for_steps'"]),
        (rule("severity = 'fatal'"), ["`severity`", "'fatal'", "info, warning, critical"]),
        (rule("severity = 3"), ["`severity` was 3", "text"]),
        (rule("phase = 'test'"), ["`phase`", "train, eval, any"]),
        (rule("actions = ['log', 'mail']"), ["'mail'", "[[channel]]"]),
        (rule("actions = ['stopp']"), ["'stopp'", "Did you mean 'stop'?"]),
        (rule("actions = 'log'"), ["`actions`", "list"]),
        (rule("for = 0"), ["`for` was 0", "1 or more"]),
        (rule("for = true"), ["`for` was True"]),
        (rule("for = '5m'"), ["`for` was '5m'", "whole number of steps"]),
        (rule("after_step = -1"), ["`after_step` was -1", "0 or more"]),
        (rule("keep_firing_for = 1.5"), ["`keep_firing_for` was 1.5"]),
        (rule("layers = []"), ["`layers` is empty"]),
        (rule('layers = [""]'), ["matches no layer"]),
        (rule("layers = 3"), ["`layers` was 3", "head.*"]),
        (rule("for = 99999999999999999999"), ["no training has more"]),
        (rule("after_step = 9223372036854775808"), ["no training has more"]),
        (rule("alert = 'x'"), ["no key 'alert'", "`name` here"]),
        (rule("follows.here = ['mine']"), ["'mine' → 'mine'".replace("'", ""), "circle"]),
        ("x = " + "[" * 9000 + "]" * 9000, ["nested too deeply"]),
        ("[[change]]\nname = 'low-rate'", ["names no key"]),
        ("[[change]]\nname = 'low-rate'\nfor = 1\n" * 2, ["changed twice"]),
        ("[[change]]\nfor = 1\n", ["no `name`"]),
        (
            "[[change]]\nname = 'low-rate'\nfor = 1\n" + rule("", name="low-rate"),
            ["changed and replaced"],
        ),
        ("[[channel]]\nname = 't'\ntype = 'slack'\nurl_env = 'X'\n" * 2, ["twice"]),
        (
            "[[channel]]\nname = 't'\ntype = 'slack'\nurl_env = 'X'\nrules = ['dead-lyer']\n",
            ["`rules`", "Did you mean 'dead-layer'?"],
        ),
        (rule("try = ['a']"), ["`try` was ['a']"]),
        (rule("metric = 'mrf'"), ["`metric`", "'mrf'", "'mfr'"]),
        (rule("metric = 'layer'"), ["`metric`", "'layer'"]),
        (rule("", name="a b"), ["'a b'", "letters"]),
        (rule("", expr="dead_fraq > 0.05"), ["'dead_fraq'", "Did you mean 'dead_frac'"]),
        (rule("", expr="mfr >"), ["`expr`", "not an SQL expression"]),
        (rule("", expr=""), ["not an SQL expression"]),
        (rule("", expr="mfr"), ["not a condition", "Float64"]),
        (rule("", expr="mfr > 'a'"), ["cannot be evaluated"]),
        (rule("", expr="mfr > (SELECT 1)"), ["holds a SELECT", "avg_over(x, n)"]),
        (rule("", expr="mfr > (SELECT avg(mfr) FROM wide)"), ["holds a SELECT"]),
        (rule("", expr="mfr > (select 1 from read_csv('/etc/passwd'))"), ["holds a SELECT"]),
        (rule("", expr="now() > TIMESTAMP '2020-01-01' AND mfr > 0"), ["asks for the time (now)"]),
        (rule("", expr="current_date > '2020-01-01' AND mfr > 0"), ["(current_date)"]),
        (rule("", expr="mfr > 0" + " AND mfr > 0" * 500), ["6007 characters", "2000 may be"]),
        (rule("", expr="(" * 300 + "mfr > 0" + ")" * 300), ["not an SQL expression", "…"]),
        (rule("", expr="avg_over(mfr, ²) > 0"), ["cannot be read"]),
        (rule("", expr="step > 10"), ["names no metric", "dead_frac"]),
        (rule("", expr="mfr > 1 OR (SELECT"), ["holds a SELECT"]),
        (rule("clear = 'mrf < 1'"), ["`clear`", "'mrf'"]),
        (rule("", expr="AVG(mfr) > 0.5"), ["'mine'", "DuckDB", "aggregates", "avg_over(x, n)"]),
        (rule("", expr="mfr > AVG(mfr) OVER ()"), ["DuckDB", "window"]),
        (rule("", expr="GREATEST(mfr, sg_mean) > 0.5"), ["does not mean the same"]),
        (rule("clear = '(mfr > 0.1) IS NOT TRUE'"), ["does not mean the same"]),
        (rule("", expr="mfr > 0 AS x"), ["DuckDB"]),
        (rule("", expr="mfr::INT > 1"), ["'mine'"]),
    ],
)
def test_a_mistake_is_told_with_file_and_rule_and_what_is_allowed(write, text, told):
    path = write(text)
    with pytest.raises(RuleError) as caught:
        load_rules(path)
    message = str(caught.value)
    assert str(path) in message
    for part in told:
        assert part in message


def test_a_file_that_is_not_there_or_a_folder_is_told(tmp_path):
    with pytest.raises(RuleError, match="no such file"):
        load_rules(tmp_path / "missing.toml")
    with pytest.raises(RuleError, match="folder"):
        load_rules(str(tmp_path))


def test_a_long_mistake_is_cut_where_it_is_shown(write):
    for text in (rule("", name="x" * 500), rule("", expr="NOT " * 400 + "mfr > 0")):
        with pytest.raises(RuleError) as caught:
            load_rules(write(text))
        assert len(str(caught.value)) < 700


def test_rules_that_follow_from_each_other_are_told_once(write):
    def pair(place, back):
        return rule(f"follows.{place} = ['b']", name="a") + rule(
            f"follows.{back} = ['a']", name="b"
        )

    for place, back in (("here", "here"), ("before", "behind"), ("behind", "before")):
        with pytest.raises(RuleError, match="is a circle: a → b → a") as caught:
            load_rules(write(pair(place, back)))
        assert str(caught.value).count("circle") == 1
    for place, back in (("before", "before"), ("behind", "behind"), ("anywhere", "anywhere")):
        load_rules(write(pair(place, back)))  # depth or time says which was first


def test_a_glob_does_not_mean_the_rule_that_it_stands_in(write):
    load_rules(write(rule("follows.here = ['m*']")))


def test_a_rule_made_by_hand_is_checked_as_well():
    with pytest.raises(RuleError, match="rule 'x': `severity` was 'bad'"):
        Rule(name="x", expr="mfr > 0", severity="bad")


def test_the_figure_is_the_first_metric_of_the_expression():
    assert Rule(name="x", expr="n_obs > 1 AND dead_frac > 0 AND mfr > 0").figure == "dead_frac"
    assert Rule(name="x", expr="n_spikes > n_obs").figure == "n_spikes"
    assert Rule(name="x", expr="n_spikes > n_obs", metric="mfr").figure == "mfr"


def test_a_comment_in_an_expression_is_no_harm(write):
    load_rules(
        write("[[rule]]\nname = 'x'\nexpr = '''\nmfr > 0.1 -- why\n  AND dead_frac > 0\n'''")
    )
