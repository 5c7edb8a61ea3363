import pytest

from spikewatch.alerts.rule_tests import run_tests
from spikewatch.errors import RuleError


RULES = """
mute = ["*"]
[[rule]]
name = "quiet"
expr = "mfr < 0.02"
for = 3
follows.before = ["quiet"]
"""
TEST = """
rules = "rules.toml"
[[test]]
name = "a layer falls silent, and the next one with it"
fires = ["quiet on a"]
[test.layers.a]
mfr = "0.1*10 0.01*10"
[test.layers.b]
mfr = "0.1*10 0.2-0.05*4 0*6"
[[test.expect]]
step = 11
rule = "quiet"
layer = "a"
state = "pending"
[[test.expect]]
step = 19
rule = "quiet"
layer = "b"
state = "firing"
follows = "quiet on a"
"""


@pytest.fixture
def run(tmp_path):
    def run(text):
        (tmp_path / "rules.toml").write_text(RULES, "utf-8")
        path = tmp_path / "rules_test.toml"
        path.write_text(text, "utf-8")
        return run_tests(path)

    return run


def test_what_is_as_expected_passes(run):
    (outcome,) = run(TEST)
    assert outcome.failures == ()


def test_what_is_otherwise_is_told(run):
    text = TEST.replace('"pending"', '"firing"').replace('["quiet on a"]', '["quiet on b"]')
    (outcome,) = run(text.replace('follows = "quiet on a"', 'follows = "nothing"'))
    assert outcome.failures == (
        "step 11: quiet on 'a' is pending, and should be firing",
        "step 19: quiet on 'b' follows from quiet on a, not from nothing",
        "quiet on b does not fire, and should",
        "quiet on a fires, and should not",
    )


def test_unknown_figures_and_pauses_are_written_with_an_underscore(run):
    text = TEST.replace('"0.1*10 0.01*10"', '"_*10 0.01*2 _*5 0.01"')
    (outcome,) = run(text.replace("step = 11", "step = 16"))
    assert outcome.failures == ()


def test_the_shipped_rules_can_be_tested_as_well(run):
    text = """
[[test]]
name = "too quiet"
phase = "train"
every = 10
first_step = 100
fires = ["low-rate on lif"]
[test.layers.lif]
mfr = [0.1, 0.005, 0.005, 0.005, 0.005, 0.005]
dead_frac = "0*6"
"""
    assert run(text)[0].failures == ()


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("mfr =", "mrf =", "Did you mean 'mfr'"),
        ('"quiet"\nlayer = "a"', '"quite"\nlayer = "a"', "Did you mean 'quiet'?"),
        ('layer = "a"', 'layer = "z"', "speaks of 'z'"),
        ('"pending"', '"pendng"', "Did you mean 'pending'?"),
        ("0.1*10 0.01*10", "0.1x10", "'0.1x10' cannot be read"),
        ("0.1*10 0.01*10", "0.1*999999999", "more than"),
        ("step = 11", "stp = 11", "Did you mean 'step'?"),
        ("step = 11", 'step = "11"', "whole number"),
        ("[test.layers.a]", "[test.layer.a]", "no key 'layer'"),
        ('rules = "rules.toml"', 'rules = "missing.toml"', "no such file"),
        ('rules = "rules.toml"', 'rule = "rules.toml"', "Did you mean 'rules'?"),
        ("[[test]]", "[[tset]]", "no key 'tset'"),
        ('fires = ["quiet on a"]', 'fires = ["quite on a"]', "Did you mean 'quiet'?"),
        ('fires = ["quiet on a"]', "every = 9223372036854775807\nfires = []", "1000000000"),
        ("mfr =", 'kind = "spikin"\nmfr =', "Did you mean 'spiking'?"),
        ("mfr =", 'n_spikes = "1e30*5"\nmfr =', "n_spikes counts something"),
        ("mfr =", "n_spikes = [0.5]\nmfr =", "n_spikes counts something"),
        ("mfr =", "sg_mean = [true]\nmfr =", "no number"),
        ("mfr =", 'silent = "1*5"\nmfr =', "'silent' is no figure"),
    ],
)
def test_a_mistake_in_a_test_is_told_with_its_file(run, before, after, told):
    with pytest.raises(RuleError) as caught:
        run(TEST.replace(before, after))
    assert told in str(caught.value)
    assert "rules_test.toml" in str(caught.value)


def test_mistakes_in_several_tests_are_told_at_once(run):
    wrong = "[[test]]\nfires = []\n[test.layers.a]\n{} = 0.1\n"
    with pytest.raises(RuleError, match="2 mistakes") as caught:
        run(wrong.format("mrf") + wrong.format("mfr") + wrong.format("dead_fraq"))
    assert "'mfr'" in str(caught.value)
    assert "'dead_frac'" in str(caught.value)


def test_a_test_that_expects_nothing_is_a_mistake(run):
    with pytest.raises(RuleError, match="expects nothing"):
        run("[[test]]\n[test.layers.a]\nmfr = 0.1\n")
