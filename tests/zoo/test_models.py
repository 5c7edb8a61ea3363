"""Each model learns real data, and each metric that applies to it is seen."""

import math

import polars as pl
import pytest
import torch

from spikewatch.stories import MODEL_STORIES
from spikewatch.zoo import load_digits
from spikewatch.zoo.models import MODELS
from spikewatch.zoo.text import load_text


LIFS = {
    "digits": ["encoder_lif", "hidden_lif"],
    "spike-gpt": [f"blocks.{b}.{part}_lif" for b in (0, 1) for part in ("time", "channel")],
    "spikformer": [
        "embedding.lif",
        *(f"block.attention.{part}.lif" for part in ("query", "key", "value", "output")),
        "block.attention.attention_lif",
        "block.wide.lif",
        "block.narrow.lif",
    ],
}
TERNARY_SPIKES = {
    "digits": ["ternary_spike"],
    "goose": ["layer.key_spike", "layer.value_spike"],
}
TERNARY_WEIGHTS = {
    "digits": ["ternary"],
    **{name: ["3", "6"] for name in ("twn", "ttq", "tervit", "lsq", "tequila", "progressive")},
}
# What no layer of the kind can have, and why.
NO_IMAGE = {"dead_channel_frac"}  # its neurons have no channels with several neurons each
NOTHING_LEARNS = {"without_gradient_frac"}  # θ and β of a plain LIF are no parameters
NO_SURROGATE = {"surrogate_width", "surrogate_width_ratio"}
NO_MEMORY = {"decay_mean", "decay_extreme_frac"}  # a neuron without membrane has no decay
WEIGHT_METRICS = {
    "weight_negative_frac",
    "weight_zero_frac",
    "weight_positive_frac",
    "weight_entropy_bits",
    "scale_positive",
    "scale_negative",
    "scale_log_ratio",
    "weight_sign_imbalance",
    "model_ternary_frac",
}
DEAD_WEIGHTS = {"dead_row_frac", "dead_column_frac"}
LATENT_METRICS = {
    "sqnr_db",
    "sqnr_fitted_db",
    "deadzone_frac",
    "boundary_pileup",
    "boundary_distance",
    "update_ratio",
    "latent_drift",
    "clipped_frac",
    "annealing",
}
# Oscillation needs a window of 70 steps.
TRANSITION_METRICS = {
    "flip_rate",
    "live_flip_rate",
    "zero_retention_frac",
    "never_flipped_frac",
}
ESTIMATOR_METRICS = {"estimator_cosine", "deadzone_reached_frac"}
SCALES_THAT_LEARN = {"ttq": 2, "lsq": 1, "tequila": 1}


def pairs(layers_of):
    return [(model, layer) for model, layers in layers_of.items() for layer in layers]


def test_every_model_has_a_story():
    assert list(MODELS) == list(MODEL_STORIES)
    assert all(MODELS[name].description == story for name, story in MODEL_STORIES.items())


# -------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("name", [n for n in MODELS if n != "spike-gpt"])
def test_it_learns_most_digits_where_chance_is_one_in_ten(name, trained):
    assert trained(name).last("accuracy") > 0.75
    assert trained(name).told[-1]["loss"] < 0.7 * trained(name).told[0]["loss"]


def test_the_language_model_foretells_more_than_the_commonest_letter(trained):
    _, following = load_text()[1].all()
    commonest = following.flatten().bincount().max().item() / following.numel()
    assert commonest < 0.2
    assert trained("spike-gpt").last("accuracy") > commonest + 0.08


@pytest.mark.parametrize("name", MODELS)
def test_no_alert_fires_on_a_healthy_training(name, trained):
    alerts = trained(name).tables["alerts"].filter(state="firing")
    assert set(alerts["severity"]) <= {"info"}


# ---------------------------------------------------------------------------------- what is seen


@pytest.mark.parametrize(("model", "layer"), pairs(LIFS))
def test_every_metric_of_a_spiking_layer_is_seen(model, layer, trained):
    seen = trained(model)
    # Tokens share the weights of a channel, as places of an image do.
    assert seen.shown("spikes", layer)[1] == (set() if model == "spikformer" else NO_IMAGE)
    for table in ("neurons", "timing", "membrane", "gradients"):
        assert seen.shown(table, layer)[1] == set(), table
    learns = model == "spike-gpt"  # θ of the one half of its neurons, β of the other
    assert seen.shown("dynamics", layer)[1] == (set() if learns else NOTHING_LEARNS)


@pytest.mark.parametrize(
    ("part", "figure", "start"),
    [("time_lif", "threshold_mean", 1.0), ("channel_lif", "decay_mean", 0.5)],
)
def test_a_threshold_and_a_decay_that_learn_are_seen_to_move(part, figure, start, trained):
    dynamics = trained("spike-gpt").tables["dynamics"].filter(layer=f"blocks.0.{part}")
    values = dynamics.sort("step")[figure]
    assert values.first() == pytest.approx(start, abs=0.05)
    assert values.n_unique() > 8
    assert (dynamics["n_without_gradient"] == 0).all()


def test_the_surrogates_narrow_as_planned_and_one_of_them_learns(trained):
    net = trained("spikformer").training.net
    assert net.embedding.lif.surrogate.alpha.item() == 4.0
    assert net.block.attention.attention_lif.surrogate.alpha.item() != 2.0
    gradients = (
        trained("spikformer").tables["gradients"].filter(layer="embedding.lif", phase="train")
    )
    active = gradients.sort("step")["sg_active_frac"]
    assert active.tail(5).mean() < active.head(5).mean()


@pytest.mark.parametrize(("model", "layer"), pairs(TERNARY_SPIKES))
def test_every_metric_of_a_ternary_spike_is_seen(model, layer, trained):
    seen = trained(model)
    # Tokens share the weights of a channel, as places of an image do.
    assert seen.shown("spikes", layer)[1] == (set() if model == "spikformer" else NO_IMAGE)
    for table in ("neurons", "timing", "gradients"):
        assert seen.shown(table, layer)[1] == set(), table
    assert {"amplitude_mean", "amplitude_out_frac"} <= seen.shown("amplitudes", layer)[0]
    assert "without_gradient_frac" in seen.shown("dynamics", layer)[0]
    spikes = seen.tables["spikes"].filter(layer=layer)
    assert (spikes["negative_rate_frac"] > 0.02).all()
    assert (spikes["positive_rate_frac"] > 0.02).all()


@pytest.mark.parametrize("layer", TERNARY_SPIKES["goose"])
def test_a_channel_wise_threshold_is_seen_and_gets_gradient(layer, trained):
    seen = trained("goose")
    assert seen.shown("dynamics", layer)[1] == NO_MEMORY
    assert seen.shown("membrane", layer)[1] == set()
    dynamics = seen.tables["dynamics"].filter(layer=layer)
    assert (dynamics["n_thresholds"] == 32).all()
    assert (dynamics["n_without_gradient"] == 0).all()
    assert "amplitude_spread" in seen.shown("amplitudes", layer)[0]
    means = seen.tables["amplitudes"].filter(layer=layer)["amplitude_mean"]
    assert means.first() == pytest.approx(0.6 if "key" in layer else 1.0, abs=0.05)
    assert means.n_unique() > 10  # it learns


def test_a_binary_embedding_is_seen_as_a_spiking_layer_without_membrane(trained):
    seen = trained("spike-gpt")
    assert seen.shown("spikes", "embedding")[1] == NO_IMAGE
    assert seen.shown("gradients", "embedding")[1] == set()
    assert "embedding" not in seen.layers("membrane")
    assert (seen.tables["spikes"].filter(layer="embedding")["n_neurons"] == 64).all()


def test_without_surrogate_there_are_rates_and_membrane_and_no_surrogate_gradient(trained):
    seen = trained("equilibrium")
    assert seen.shown("spikes", "neurons")[1] == NO_IMAGE
    assert seen.shown("timing", "neurons")[1] == set()
    assert seen.shown("dynamics", "neurons")[1] == NOTHING_LEARNS | NO_SURROGATE
    # The simulation leaves no graph: only the potential after the reset is there to be read.
    assert seen.shown("membrane", "neurons")[1] == {"membrane_quantization_error"}
    assert "neurons" not in seen.layers("gradients")
    assert (
        seen.tables["timing"].filter(layer="neurons", phase="train")["ttfs_restricted_steps"].max()
        < 30
    )
    residual = seen.tables["scalars"].filter(name="equilibrium_residual")["value"]
    assert 0 < residual.tail(10).mean() < 0.05


@pytest.mark.parametrize(("model", "layer"), pairs(TERNARY_WEIGHTS))
def test_ternary_weights_are_seen_as_such(model, layer, trained):
    seen = trained(model)
    assert seen.shown("weights", layer)[0] >= WEIGHT_METRICS
    assert "alpha_mean" in seen.shown("amplitudes", layer)[0]
    module = seen.training.net.get_submodule(layer)
    last = seen.tables["weights"].filter(layer=layer).sort("step").row(-1, named=True)
    # A step's weights are counted before its update: an update moves few of them.
    share = (module.quantized_weight() == 0).float().mean().item()
    assert last["weight_zero_frac"] == pytest.approx(share, abs=0.02)
    assert last["weight_entropy_bits"] > 0.8


@pytest.mark.parametrize(("model", "layer"), pairs(TERNARY_WEIGHTS))
def test_latent_weights_and_their_transitions_are_seen(model, layer, trained):
    seen = trained(model)
    assert seen.shown("weights", layer)[0] >= DEAD_WEIGHTS
    assert seen.shown("latent", layer)[0] == LATENT_METRICS
    assert seen.shown("transitions", layer)[0] >= TRANSITION_METRICS
    assert seen.shown("estimator", layer)[0] >= ESTIMATOR_METRICS
    latent = seen.tables["latent"].filter(layer=layer, phase="train").sort("step")
    assert 4 < latent["sqnr_fitted_db"].drop_nulls().last() < 12
    assert 0.3 < latent["boundary_pileup"].drop_nulls().last() < 2
    module = seen.training.net.get_submodule(layer)
    w, t = module.weight.detach(), module.quantized_weight().detach()
    noise = (w - t).square().sum()
    sqnr = 10 * torch.log10(w.square().sum() / noise).item()
    assert latent["sqnr_db"].drop_nulls().last() == pytest.approx(sqnr, abs=0.3)


@pytest.mark.parametrize(("model", "n"), SCALES_THAT_LEARN.items())
def test_scales_that_learn_get_a_gradient(model, n, trained):
    weights = trained(model).tables["weights"].filter(layer="3")
    assert weights["n_learnable_scales"].drop_nulls().unique().to_list() == [n]
    assert weights["scale_without_gradient_frac"].drop_nulls().unique().to_list() == [0]


@pytest.mark.parametrize(("model", "layer"), pairs(TERNARY_WEIGHTS))
def test_gradients_get_through_every_quantizer(model, layer, trained):
    estimator = trained(model).tables["estimator"].filter(layer=layer)
    assert estimator["estimator_cosine"].drop_nulls().min() > 0.2
    assert estimator["deadzone_reached_frac"].drop_nulls().unique().to_list() == [1.0]
    turned = estimator["scale_gradient_turned_frac"].drop_nulls().unique().to_list()
    assert turned == ([0.0] if model == "ttq" else [])


def test_the_stage_of_an_annealing_is_seen_to_rise(trained):
    stages = trained("progressive").tables["latent"].filter(layer="3").sort("step")["annealing"]
    stages = stages.drop_nulls().to_list()
    assert 0 < stages[0] < 1
    assert stages[-1] == 1


def test_most_weights_of_the_network_are_said_to_be_ternary(trained):
    seen = trained("lsq")
    shares = seen.tables["weights"]["model_ternary_frac"].drop_nulls()
    assert shares.last() == pytest.approx(seen.training.net.ternary_frac)


def test_the_width_of_an_annealed_and_of_a_learned_surrogate_is_followed(trained):
    dynamics = trained("spikformer").tables["dynamics"].sort("step")

    def widths(layer):
        return dynamics.filter(layer=layer)["surrogate_width"].drop_nulls()

    annealed = widths("embedding.lif")
    assert annealed.first() == pytest.approx(4 / math.pi, rel=0.05)  # α from 1 to 4
    assert annealed.is_sorted(descending=True)
    assert annealed.last() < 0.4
    learned = widths("block.attention.attention_lif")
    assert learned.first() == pytest.approx(2 / math.pi, rel=0.02)
    assert learned.n_unique() > 3


def test_the_threshold_of_a_ternary_spike_is_that_of_its_running_mean(trained):
    seen = trained("digits")
    dynamics = seen.tables["dynamics"].filter(layer="ternary_spike").sort("step")
    spike = seen.training.net.ternary_spike
    theta = dynamics["threshold_mean"].drop_nulls()
    assert theta.last() == pytest.approx(spike.threshold().mean().item(), rel=0.1)
    assert seen.shown("membrane", "ternary_spike")[0]


@pytest.mark.parametrize("model", TERNARY_WEIGHTS)
def test_ternary_weights_only_add(model, trained):
    energy = trained(model).tables["energy"].filter(phase="train")
    layer = TERNARY_WEIGHTS[model][-1]
    last = energy.filter(layer=layer).sort("step").row(-1, named=True)
    assert last["n_macs"] == 0
    assert 0 < last["energy_ratio_compute"] < 1
    assert trained(model).shown("energy", layer)[1] == set()


def test_two_binary_kernels_are_one_ternary_layer(trained):
    seen = trained("sttn")
    kernels = {"3.linear_1+linear_2": "3", "6.linear_1+linear_2": "6"}
    assert seen.layers("weights") == set(kernels)
    for layer, name in kernels.items():
        last = seen.tables["weights"].filter(layer=layer).sort("step").row(-1, named=True)
        q = seen.training.net.get_submodule(name).quantized_weight()
        assert last["n_weights"] == q.numel()
        assert last["weight_zero_frac"] == pytest.approx(q.eq(0).float().mean().item(), abs=0.01)
        assert 0.4 < last["weight_zero_frac"] < 0.6


def test_operations_of_two_kernels_are_counted_once(trained):
    energy = trained("sttn").tables["energy"].filter(phase="train")
    assert set(energy["layer"]) == {"0", "3.linear_1+linear_2", "6.linear_1+linear_2", "9"}
    assert set(energy.filter(layer="3.linear_1+linear_2")["n_macs"]) == {0}


@pytest.mark.parametrize(("model", "begins"), [("tervit", 0.3), ("progressive", 0.7)])
def test_weights_are_counted_from_the_step_in_which_they_become_ternary(model, begins, trained):
    seen = trained(model)
    steps = seen.tables["weights"].filter(phase="train")["step"]
    assert steps.min() == pytest.approx(begins * seen.n_steps, abs=1)
    assert steps.n_unique() == steps.max() - steps.min() + 1


@pytest.mark.parametrize("model", ["tervit", "progressive", "sttn"])
def test_weights_that_are_not_ternary_yet_are_named_and_set_off_no_warning(model, trained):
    seen = trained(model)
    notes = seen.tables["events"].filter(kind="note", layer="")
    assert notes.is_empty()
    layers = seen.tables["layers"]
    ends = layers.filter(layers["layer"].is_in(["0", "9"]))
    assert set(ends["kind"]) == {"quantized"}
    assert set(ends["note"]) == {"8 bit, a scale a row"}
    first = layers.sort("at").filter(layer="3" if model != "sttn" else "3.linear_1")
    kinds = {"sttn": ["quantized"]}.get(model, ["quantized", "ternary"])
    assert first["kind"].to_list() == kinds


def test_the_two_scales_of_ttq_move_apart(trained):
    seen = trained("ttq")
    rows = seen.tables["weights"].filter(layer="3").sort("step")
    module = seen.training.net.get_submodule("3")
    assert rows["scale_positive"].last() == pytest.approx(module.w_p.item(), rel=0.05)
    assert rows["scale_negative"].last() == pytest.approx(module.w_n.item(), rel=0.05)
    assert module.w_p.item() != module.w_n.item()


@pytest.mark.parametrize("model", [*LIFS, "equilibrium", "goose"])
def test_operations_are_counted_and_their_energy_is_known(model, trained):
    seen = trained(model)
    for layer in seen.layers("energy"):
        assert seen.shown("energy", layer)[1] == set(), layer


def test_sums_of_spikes_multiply_and_spikes_add(trained):
    energy = trained("spikformer").tables["energy"].filter(phase="train")
    macs = dict(energy.group_by("layer").agg(pl.mean("mac_frac")).iter_rows())
    assert macs["block.narrow.linear"] == macs["block.attention.output.linear"] == 0
    assert macs["block.wide.linear"] == macs["patches"] == 1


def test_the_student_s_distance_from_its_teacher_is_stored(trained):
    scalars = set(trained("goose").tables["scalars"]["name"])
    assert {"ce", "kd", "feature_loss", "agreement", "accuracy", "accuracy_gap"} <= scalars
    assert trained("goose").last("agreement") > 0.6


def test_the_outputs_of_student_and_teacher_are_compared_as_the_loss_does(trained):
    seen = trained("goose")
    rows = seen.tables["distillation"].filter(phase="train").sort("step")
    assert set(rows["layer"]) == {"teacher"}
    for row in rows.iter_rows(named=True):
        told = seen.told[row["step"]]
        assert row["kd_gap"] == pytest.approx(told["kd"], rel=1e-4)
        assert row["kd_agreement_frac"] == pytest.approx(told["agreement"])


def test_what_keeps_weights_from_collapsing_is_stored(trained):
    lost = trained("twn").tables["scalars"].filter(name="lost_entropy")["value"]
    assert 0 <= lost.min() <= lost.max() < 0.2


# ---------------------------------------------------------------------------------------- parts


def test_most_weights_of_the_ternary_networks_are_ternary():
    net = MODELS["lsq"].build()
    assert net.ternary_frac > 0.75


def test_data_are_split_into_what_is_learnt_from_and_what_is_not():
    for load in (load_digits, load_text):
        train, test = load()
        assert len(train) >= 640
        assert train is not test
