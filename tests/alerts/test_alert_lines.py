import math

from spikewatch.alerts.lines import alert_line


def test_firing_is_one_line_with_all_that_one_needs(alert):
    assert alert_line(alert()) == (
        "spikewatch CRITICAL dead-neurons firing on 'lif1' since step 12: Neurons are dead "
        "(dead_frac 83 %). Likely: threshold too high. Try: lower it."
    )


def test_resolved_is_shorter(alert):
    assert alert_line(alert(state="resolved", step=40, value=0.031, summary=None)) == (
        "spikewatch resolved dead-neurons on 'lif1' at step 40 (fired since step 12): "
        "dead_frac 3.1 %"
    )


def test_phase_and_rank_are_told_where_they_are_not_the_usual_ones(alert):
    assert "on 'lif1' (eval, rank 2) since" in alert_line(alert(phase="eval", rank=2))


def test_only_fractions_are_in_percent(alert):
    assert "(amplitude_max 3.192)" in alert_line(alert(metric="amplitude_max", value=3.19195))
    assert "(mfr 0.012 %)" in alert_line(alert(metric="mfr", value=0.00012))
    assert "(value nan)" in alert_line(alert(metric="value", value=math.nan))
    assert "(mfr nan)" in alert_line(alert(metric="mfr", value=math.nan))
    assert "(mfr unknown)" in alert_line(alert(metric="mfr", value=None))


def test_a_rule_without_words_and_one_with_several_lines_give_one_line(alert):
    assert alert_line(alert(summary="", likely="", advice=None)).endswith(
        "step 12: dead_frac 83 %."
    )
    assert "\n" not in alert_line(alert(summary="two\n  lines", layer="a\nb"))
