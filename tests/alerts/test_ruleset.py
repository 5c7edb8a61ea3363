"""Which rules count: the shipped ones, as a file changes them that is found in one of 3 ways."""

import pytest

from spikewatch.alerts.loading import find_ruleset, load_rules, load_ruleset
from spikewatch.errors import RuleError


OWN = '[[rule]]\nname = "own"\nexpr = "mfr > 0.5"\n'


@pytest.fixture
def write(tmp_path):
    def write(text, name="rules.toml"):
        path = tmp_path / name
        path.write_text(text, "utf-8")
        return path

    return write


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    monkeypatch.delenv("SPIKEWATCH_RULES", raising=False)
    (tmp_path / "work" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "deep")


def by_name(rules):
    return {rule.name: rule for rule in rules}


def test_a_change_keeps_what_it_does_not_name(write):
    ruleset = load_ruleset(write('[[change]]\nname = "low-rate"\nfor = 9\nseverity = "info"\n'))
    shipped, changed = by_name(load_rules())["low-rate"], by_name(ruleset.rules)["low-rate"]
    assert (changed.for_steps, changed.severity) == (9, "info")
    assert (changed.expr, changed.advice, changed.follows) == (
        shipped.expr,
        shipped.advice,
        shipped.follows,
    )
    assert ruleset.changed == ("low-rate",)


def test_globs_mute_several_and_a_star_begins_from_nothing(write):
    ruleset = load_ruleset(write('mute = ["amplitude-*"]\n'))
    assert ruleset.muted == ("amplitude-flipped", "amplitude-too-large", "amplitude-too-small")
    alone = load_ruleset(write('mute = ["*"]\n' + OWN))
    assert [rule.name for rule in alone.rules] == ["own"]


def test_all_mistakes_of_a_file_are_told_at_once(write):
    path = write(
        'mute = ["no-such"]\n'
        '[[rule]]\nname = "a"\nexpr = "dead_fraq > 0"\n'
        '[[rule]]\nname = "b"\nexpr = "mfr >"\n'
        '[[rule]]\nname = "c"\nexpr = "mfr > 0"\nfollows.before = ["dead-layr"]\n'
        '[[rule]]\nname = "low-rate"\nfor = 3\n'
        '[[change]]\nname = "low-rat"\n'
        '[[channel]]\nname = "t"\ntype = "slak"\n'
    )
    with pytest.raises(RuleError) as caught:
        load_ruleset(path)
    told = str(caught.value)
    for part in (
        f"{path}: 8 mistakes:",
        "'no-such'",
        "Did you mean 'dead_frac'",
        "not an SQL expression",
        "Did you mean 'dead-layer'?",
        "begin with [[change]]",
        "Did you mean 'low-rate'?",
        "Did you mean 'slack'?",
    ):
        assert part in told


def test_a_mistake_at_the_top_hides_none_below(write):
    path = write(
        'rules = 1\nmute = "x"\n[[rule]]\nname = "a"\nexpr = "mfr >"\nfollows.before = ["no"]\n'
        '[[rule]]\nname = "a"\nexpr = "mfr > 0"\n'
    )
    with pytest.raises(RuleError) as caught:
        load_ruleset(path)
    for part in ("5 mistakes", "'rules'", "`mute`", "not an SQL", "'no'", "there twice"):
        assert part in str(caught.value)


def test_all_mistakes_of_a_rule_are_told_too(write):
    path = write(
        '[[rule]]\nname = "a"\nexpr = "dead_fraq > 0"\nfor = "5m"\nseverity = "bad"\ncolor = 3\n'
        'clear = "mfr"\nactions = ["stpo"]\nlayers = ["kind:x"]\nmetric = "layer"\n'
    )
    with pytest.raises(RuleError) as caught:
        load_ruleset(path)
    told = str(caught.value)
    for part in ("'dead_fraq'", "'5m'", "'bad'", "`clear`", "'stpo'", "'x'", "`metric`", "'color'"):
        assert part in told
    assert told.count("rule 'a'") == 1


def test_muted_and_changed_is_a_mistake(write):
    with pytest.raises(RuleError, match="muted and changed"):
        load_ruleset(write('mute = ["low-*"]\n[[change]]\nname = "low-rate"\nfor = 2\n'))


def test_a_rule_without_a_name_may_have_been_meant_to_change_a_shipped_one(write):
    with pytest.raises(RuleError, match=r"no `name`.*begins with \[\[change\]\]"):
        load_ruleset(write("[[rule]]\nfor = 3\n"))


def test_layers_may_be_named_by_kind(write):
    (rule,) = load_ruleset(write('mute = ["*"]\n' + OWN + 'layers = ["kind:ternary"]\n')).rules
    assert rule.looks_at("train", "fc", "ternary")
    assert not rule.looks_at("train", "fc", "spiking")
    with pytest.raises(RuleError, match="Did you mean 'ternary'"):
        load_ruleset(write(OWN + 'layers = ["kind:ternery"]\n'))


def test_without_a_file_the_shipped_rules_count():
    assert find_ruleset().rules == load_rules()


def test_a_file_is_found_by_the_environment_which_is_named_when_it_is_wrong(write, monkeypatch):
    monkeypatch.setenv("SPIKEWATCH_RULES", str(write(OWN)))
    assert find_ruleset().added == ("own",)
    monkeypatch.setenv("SPIKEWATCH_RULES", "no-such.toml")
    with pytest.raises(RuleError, match="SPIKEWATCH_RULES"):
        find_ruleset()


def test_the_project_names_a_file_beside_its_pyproject(write):
    write(OWN, "mine.toml")
    write('[tool.spikewatch]\nrules = "mine.toml"\n', "pyproject.toml")
    assert find_ruleset().added == ("own",)


def test_the_project_may_hold_rules_itself(write):
    text = '[tool.spikewatch]\nmute = ["low-rate"]\n' + OWN.replace(
        "[[rule", "[[tool.spikewatch.rule"
    )
    write(text, "pyproject.toml")
    ruleset = find_ruleset()
    assert (ruleset.added, ruleset.muted) == (("own",), ("low-rate",))
    assert ruleset.origin.endswith("pyproject.toml [tool.spikewatch]")


def test_a_pyproject_that_is_about_something_else_is_passed_over(write):
    write("[tool.other]\n", "work/pyproject.toml")
    write("[tool.spikewatch]\n" + 'mute = ["low-rate"]\n', "pyproject.toml")
    assert find_ruleset().muted == ("low-rate",)
    write("not toml", "work/pyproject.toml")
    assert find_ruleset().muted == ("low-rate",)


@pytest.mark.parametrize("text", ["rules = 3", 'rules = "x"\nmute = []', "ruls = 'x'"])
def test_a_mistake_in_the_project_names_it(write, text):
    write(f"[tool.spikewatch]\n{text}\n", "pyproject.toml")
    with pytest.raises(RuleError, match=r"pyproject\.toml"):
        find_ruleset()


def test_an_argument_goes_before_the_environment_and_that_before_the_project(write, monkeypatch):
    write('[tool.spikewatch]\nmute = ["*"]\n', "pyproject.toml")
    monkeypatch.setenv("SPIKEWATCH_RULES", str(write(OWN)))
    assert find_ruleset().added == ("own",)
    assert find_ruleset(write(OWN.replace("own", "other"), "b.toml")).added == ("other",)
