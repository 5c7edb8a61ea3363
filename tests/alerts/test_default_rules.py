import polars as pl
import pytest

from spikewatch.alerts.agreement import check_agreement, probe_rows
from spikewatch.alerts.engine import Engine
from spikewatch.alerts.history import History
from spikewatch.alerts.judging import Judge
from spikewatch.alerts.loading import load_rules

from .judged import fired
from .sick import INF, NAN, SICK, SILENT, SLOTS


RULES = {rule.name: rule for rule in load_rules()}

SIGNS_OF_LIFE = {"layer-goes-quiet", "training-stalls"}  # see test_liveness.py
PATIENT = {  # see below
    "amplitudes-tied",
    "loss-stands-still",
    "accuracy-gap",
    "wide-accuracy-gap",
    "trapped-weights",
}


def test_a_healthy_network_is_silent_and_is_called_ok(wide):
    engine = Engine(load_rules(), run="r", rank=0)
    out = engine.feed(wide(range(260)))
    assert set(out["state"]) == {"unknown", "ok"}
    last = out.group_by("rule", "layer", maintain_order=True).last()
    assert set(last["state"]) == {"ok"}
    assert set(last["rule"]) == set(RULES) - {"training-stalls"}


def test_each_rule_is_tried():
    assert SICK.keys() | SIGNS_OF_LIFE | PATIENT == RULES.keys()


@pytest.mark.parametrize("name", SICK)
def test_each_illness_fires_its_own_rule_and_no_other(wide, name):
    layer, counters = SICK[name]
    assert fired(wide(range(40)), wide(range(40, 60), **{layer: counters})) == {(name, layer)}


@pytest.mark.parametrize("name", SICK)
def test_each_alert_ends_when_the_layer_is_well_again(wide, name):
    layer, counters = SICK[name]
    engine = Engine(load_rules(), run="r", rank=0)
    engine.feed(wide(range(40)))
    engine.feed(wide(range(40, 60), **{layer: counters}))
    out = engine.feed(wide(range(60, 90))).filter(rule=name)
    assert out["state"].to_list() == ["resolved"]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_each_rule_says_what_is_wrong_why_and_what_to_try(rule):
    assert rule.summary
    assert rule.source
    assert rule.likely
    assert rule.advice


@pytest.mark.parametrize("share", [0.06, 0.1, 0.2, 0.21, 0.25, 0.3, 0.5, 0.9, 0.95, 0.97, 1.0])
def test_dead_neurons_are_told_at_any_share_and_at_the_edges_too(wide, share):
    found = fired(wide(range(100, 140), lif={"n_dead": round(100 * share)}))
    assert found
    assert {layer for _, layer in found} == {"lif"}


@pytest.mark.parametrize("shares", [(19, 22), (24, 27), (94, 97), (97, 99)])
def test_a_share_that_swings_around_an_edge_still_fires(wide, shares):
    frames = [wide(range(s, s + 1), lif={"n_dead": shares[s % 2]}) for s in range(100, 115)]
    assert fired(*frames)


def test_neurons_that_gradient_can_still_wake_are_unknown_in_the_warm_up(wide):
    asleep = SILENT | {"n_carrying": 90, "n_never_fired": 100}
    engine = Engine(load_rules(), run="r", rank=0)
    early = engine.feed(wide(range(99), lif=asleep)).filter(rule="dead-layer", layer="lif")
    assert early["state"].to_list() == ["unknown"]
    late = engine.feed(wide(range(99, 110), lif=asleep)).filter(rule="dead-layer", layer="lif")
    assert late.select("step", "state").rows() == [(100, "pending"), (102, "firing")]


def test_neurons_that_have_fired_before_are_told_in_the_warm_up_too(wide):
    died = SILENT | {"n_carrying": 90, "n_never_fired": 0}
    assert fired(wide(range(50)), wide(range(50, 60), lif=died)) == {("dead-layer", "lif")}


def waking(step, *, dead, n_carrying):
    return {"n_dead": dead, "n_never_fired": dead // 3, "n_carrying": n_carrying}


@pytest.mark.parametrize(
    ("n_dead", "n_carrying", "found"),
    [
        (lambda step: 40 - step // 5, 100, set()),  # they wake up, a fifth of them in 40 steps
        # No gradient wakes them.
        (lambda step: 40 - step // 5, 50, {("many-dead-neurons", "lif"), ("dead-neurons", "lif")}),
        (lambda step: 30 - step // 50, 100, {("many-dead-neurons", "lif")}),  # far too slowly
        (lambda step: 10 - step // 20, 100, set()),
        (lambda step: 10 + step % 2, 100, {("dead-neurons", "lif")}),
    ],
)
def test_dead_neurons_that_wake_up_one_by_one_are_given_time(wide, n_dead, n_carrying, found):
    frames = [
        wide(range(s, s + 1), lif=waking(s, dead=n_dead(s), n_carrying=n_carrying))
        for s in range(120)
    ]
    assert fired(*frames) == found


def test_channels_that_wake_up_one_by_one_are_given_time(wide):
    def asleep(n):
        dead = {"n_dead": 10 * n, "n_dead_channels": n, "n_never_fired": 10 * n}
        return dead | {"n_carrying": 100}

    frames = [wide(range(s, s + 1), tern=asleep(9 - s // 15)) for s in range(130)]
    assert not fired(*frames)
    assert fired(*frames, wide(range(130, 170), tern=asleep(3))) == {("many-dead-neurons", "tern")}


def test_the_potential_of_a_readout_that_the_loss_takes_itself_may_be_what_it_likes(wide):
    read = {"n_grad": 0, "sum_sq_grad": None, "n_grad_deepest": None, "n_sg_active": 10}
    read |= {"is_unused": 1}
    large = {"n_runaway": 2900, "sum_z": -74_000.0, "sum_sq_z": 1_900_000.0}
    large |= {"sum_sq_quantization": 2_000_000.0}
    assert not fired(wide(range(40), lif=read), wide(range(40, 80), lif=read | large))
    assert ("runaway-membrane", "lif") in fired(wide(range(40)), wide(range(40, 80), lif=large))


def test_ten_of_a_threshold_that_is_tiny_beside_the_surrogate_are_no_runaway(wide):
    # z + 1 is 30 as a root mean square; the surrogate is 352 thresholds wide, or one
    spread = {"n_runaway": 2200, "sum_z": -4000.0, "sum_sq_z": 3.6e6}
    ill = ("runaway-membrane", "lif")
    assert ill not in fired(wide(range(40), lif=spread | {"fwhm": 352.0}))
    assert ill in fired(wide(range(40), lif=spread | {"fwhm": 1.0}))
    assert ill in fired(wide(range(40), lif=spread | {"fwhm": None}))


def test_a_silent_layer_that_wakes_up_has_not_drifted(wide):
    still = {"reference_sum_z": -3450.0, "reference_sum_sq_z": 2906.0 + 40}
    awake = still | {"sum_z": -6500.0, "sum_sq_z": 16_000.0}  # at -1.6 thresholds, give or take 1.2
    assert not fired(wide(range(40)), wide(range(40, 80), lif=awake))


def test_a_decay_beyond_its_clamp_is_no_illness_where_no_gradient_tells_of_it(wide):
    stuck = {"decay_max": 1.01, "n_without_gradient": None, "without_gradient_rows": None}
    assert not fired(wide(range(40, 60), phase="eval", lif=stuck))


def test_zeros_that_stay_while_other_weights_become_zero_and_none_comes_back_are_trapped(wide):
    trapped = {"n_retained": 399, "n_flips": 2, "n_live_flips": 2}
    assert fired(wide(range(110), fc=trapped)) == {("trapped-weights", "fc")}


def test_zeros_of_a_network_in_which_few_weights_go_to_and_fro_are_not_trapped(wide):
    assert not fired(wide(range(160), fc={"n_retained": 399, "n_flips": 2, "n_live_flips": 1}))


def test_a_decay_beyond_its_clamp_learns_learns_nothing_and_does_no_other_harm(wide):
    stuck = {"decay_max": 1.01, "n_without_gradient": 1, "without_gradient_rows": 9}
    assert fired(wide(range(40)), wide(range(40, 60), lif=stuck)) == {("learns-nothing", "lif")}


def test_the_blank_rim_of_an_image_is_not_dead(wide):
    rim = {"n_dead": 30, "n_never_fired": 30, "n_carrying": 70}
    assert not fired(wide(range(150, 170), tern=rim))
    assert fired(wide(range(150, 170), lif=rim)) == {("many-dead-neurons", "lif")}


@pytest.mark.parametrize(
    ("n", "rule"), [(1, "dead-channels"), (4, "many-dead-neurons"), (10, "dead-layer")]
)
def test_of_filters_the_dead_channels_count(wide, n, rule):
    dead = {"n_dead": 10 * n, "n_dead_channels": n, "n_never_fired": 10 * n, "n_carrying": 0}
    assert fired(wide(range(150, 170), tern=dead)) == {(rule, "tern")}


def test_places_that_always_fire_are_no_illness_of_a_filter_until_they_are_half_of_all(wide):
    assert not fired(wide(range(150, 170), tern={"n_saturated": 20}))
    found = fired(wide(range(150, 170), tern={"n_saturated": 60}))
    assert found == {("many-saturated-neurons", "tern")}


def test_a_low_rate_that_rises_is_that_of_a_network_that_wakes_up(wide):
    def rate(n):
        return {"n_spikes": n, "n_positive": n, "sum_abs_spike": float(n), "n_dead": 0}

    assert not fired(*(wide(range(s, s + 1), lif=rate(50 + 6 * s)) for s in range(90)))
    assert fired(wide(range(60), lif=rate(200))) == {("low-rate", "lif")}


def test_a_silent_layer_is_not_called_one_of_a_low_rate(wide):
    hushed = {"n_spikes": 0, "n_positive": 0, "sum_abs_spike": 0.0}
    assert not fired(wide(range(150, 170), lif=hushed))


def test_small_gradients_everywhere_are_the_end_of_learning_and_no_illness(wide):
    learnt = {"sum_sq_grad": 1e-20, "sum_sq_grad_deepest": 1e-20}
    learnt |= {"sum_sq_grad_first": 1e-21, "sum_sq_grad_last": 1e-21}
    assert not fired(wide(range(150, 170), lif=learnt))
    lost = learnt | {"sum_sq_grad_deepest": 1e-4}
    assert ("vanished-gradient", "lif") in fired(wide(range(150, 170), lif=lost))


def test_ternary_spikes_that_lose_their_negative_side_are_told(wide):
    one_sided = {"n_positive": SLOTS // 10}
    found = fired(wide(range(60)), wide(range(60, 80), tern=one_sided))
    assert found == {("one-sided-spikes", "tern")}
    assert not fired(wide(range(80), lif={"n_positive": SLOTS // 10}))


def test_spikes_that_stand_for_a_value_may_have_any_size_and_sign(wide):
    changes = {"n_positive": SLOTS // 10 - 1, "sum_abs_spike": SLOTS / 10 * 0.1}
    assert {rule for rule, _ in fired(wide(range(40), lif=changes))} == {
        "one-sided-spikes",
        "spikes-out-of-range",
    }
    assert not fired(wide(range(40), lif=changes | {"is_graded": 1}))


def roots(*frames):
    engine = Engine(load_rules(), run="r", rank=0)
    out = pl.concat([engine.feed(frame) for frame in frames]).filter(state="firing")
    last = out.group_by("rule", "layer", maintain_order=True).last()
    return set(last.filter(pl.col("root_rule").is_null()).select("rule", "layer").rows())


def test_neurons_are_silenced_by_a_nan_that_is_read_later_than_its_consequence(wide):
    dead = {"n_dead": 50, "n_carrying": 0}
    ill = {"n_sg_nonfinite": 8, "n_nonfinite_grad": 1}
    frames = [
        wide(range(40)),
        wide(range(40, 43), lif=dead),
        wide(range(43, 60), lif=dead | ill),
    ]
    assert roots(*frames) == {("non-finite-membrane", "lif")}


def test_of_what_is_not_finite_in_one_step_the_weights_are_the_root(wide):
    _, weights = SICK["non-finite-weights"]
    ill = {"fc": weights, "loss": {"value": NAN}, "tern": SICK["non-finite-amplitude"][1]}
    assert roots(wide(range(40)), wide(range(40, 50), **ill)) == {("non-finite-weights", "fc")}


def test_of_a_loss_and_parameters_that_are_not_finite_the_loss_is_the_root(wide):
    ill = {"loss": {"value": NAN}, "tern": SICK["non-finite-amplitude"][1]}
    assert roots(wide(range(40)), wide(range(40, 50), **ill)) == {("non-finite-value", "loss")}


def test_a_threshold_that_is_no_number_follows_from_what_is_not_finite(wide):
    ill = {
        "loss": {"value": NAN},
        "lif": {"n_thresholds_out": 1, "decay_min": NAN, "decay_max": NAN},
    }
    assert roots(wide(range(40)), wide(range(40, 50), **ill)) == {("non-finite-value", "loss")}


def test_neurons_that_gradient_cannot_wake_are_told_early(wide):
    assert fired(wide(range(13), lif=SILENT)) == {("dead-layer", "lif")}


def test_without_surrogate_nodes_dead_neurons_are_told_early_too(wide):
    unread = {"n_dead": 100, "n_carrying": None, "n_sg_neurons": None}
    assert fired(wide(range(13), lif=unread)) == {("dead-layer", "lif")}


def test_the_advice_for_large_spikes_knows_neurons_that_fire_several_times_in_a_step():
    advice = next(rule for rule in load_rules() if rule.name == "spikes-out-of-range").advice
    assert all(words in advice for words in ("clamp the amplitude", "dt", "max_spikes_per_dt"))


def test_amplitudes_that_are_still_the_same_after_200_steps_are_tied(wide):
    tied = {"sum_sq_amplitude": 4.0}
    assert not fired(wide(range(150, 200), tern=tied))
    assert fired(wide(range(190, 210), tern=tied)) == {("amplitudes-tied", "tern")}


@pytest.mark.parametrize(("gap", "rule"), [(0.05, "accuracy-gap"), (0.2, "wide-accuracy-gap")])
def test_a_student_behind_its_teacher_is_told_once_it_had_time_to_learn(wide, gap, rule):
    assert not fired(wide(range(199), accuracy_gap={"value": gap}))
    assert fired(wide(range(199, 210), accuracy_gap={"value": gap})) == {(rule, "accuracy_gap")}


def test_one_percent_of_flips_is_too_much_late_and_not_early(wide):
    many = {"n_flips": 20}
    assert not fired(wide(range(40), fc={"n_flips": 20}), wide(range(40, 60), fc=many))
    assert fired(wide(range(490, 520), fc=many)) == {("restless-weights", "fc")}


def test_zeros_that_stay_while_nothing_moves_are_converged_and_not_trapped(wide):
    assert not fired(wide(range(60), fc={"n_retained": 399, "n_live_flips": 0}))


def test_a_nearly_binary_layer_is_not_blamed_for_its_noise(wide):
    binary = {"n_weight_zero": 10, "n_weight_negative": 490, "n_weight_positive": 500}
    noisy = binary | {"sum_latent_quantized": 3.5}  # 4.1 dB: Gaussian weights, two levels
    assert fired(wide(range(40), fc=noisy)) == {("nearly-binary", "fc")}


def test_a_loss_that_never_falls_is_told_and_one_that_falls_slowly_is_not(wide):
    def loss(values):
        rows = wide(range(len(values))).filter(layer="loss")
        return rows.with_columns(value=pl.Series(values))

    assert fired(loss([0.5 + 0.01 * (i % 2) for i in range(200)])) == {
        ("loss-stands-still", "loss")
    }
    assert not fired(loss([0.5 * 0.9995**i for i in range(400)]))


def test_a_warm_up_in_which_all_is_dead_is_no_alert(wide):
    frames = [wide(range(3), lif=SILENT), wide(range(3, 8), lif={"n_dead": 30}), wide(range(8, 40))]
    assert not fired(*frames)


def test_without_enough_evidence_dead_is_unknown(wide):
    engine = Engine(load_rules(), run="r", rank=0)
    out = engine.feed(wide(range(40), lif=SILENT | {"n_dead": None, "n_saturated": None}))
    found = out.filter(layer="lif", rule="dead-layer")
    assert found["state"].to_list() == ["unknown"]


def test_an_infinite_loss_is_no_finite_one(wide):
    assert fired(wide(range(1), loss={"value": -INF})) == {("non-finite-value", "loss")}


def test_single_overflows_of_loss_scaling_are_no_alert(wide):
    bad = {"n_nonfinite_grad": 1, "n_grad": 0, "sum_sq_grad": 0.0}
    frames = [wide(range(2), lif=bad), wide(range(2, 30)), wide(range(30, 31), lif=bad)]
    assert not fired(*frames, wide(range(31, 50)))


def test_polars_and_duckdb_judge_alike_also_of_null_nan_and_infinity():
    check_agreement((r.name, c) for r in RULES.values() for c in r.conditions)
    rows = probe_rows().with_columns(
        gone=pl.lit(None, pl.Boolean), moment=pl.lit(0), step=pl.lit(1, pl.Int64)
    )
    judged = Judge(load_rules()).judge(History(lookbacks()).extend(rows))
    verdicts = [c for c in judged.columns if c.startswith("holds ")]
    assert {True, False, None} == {v for c in verdicts for v in judged[c]}


def lookbacks():
    return [x for r in RULES.values() for c in r.conditions for x in c.lookbacks]
