"""Every figure on the page, against Polars over the very rows that went into the journal."""

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from spikingjelly.activation_based import functional, layer, neuron

import spikewatch
from spikewatch.app import queries
from spikewatch.app.scope import MOST_BUCKETS, Scope
from spikewatch.store import open_store


@pytest.fixture(name="written", scope="module")
def _written(tmp_path_factory, make_run):
    folder = tmp_path_factory.mktemp("queried")
    run = make_run("long", n_layers=9, n_steps=1000)
    run.write(folder)
    with open_store(folder) as store:
        yield store, {t: store.sql(f"SELECT * FROM {t}") for t in ("spikes", "gradients")}


def scope_of(**changes):
    whole = {"run": "long", "rank": 0, "phase": "train", "first_step": 0, "last_step": 999}
    return Scope(**whole | changes)


@pytest.mark.parametrize(("n_steps", "width"), [(1, 1), (400, 1), (401, 2), (1000, 4), (5000, 16)])
def test_buckets_are_powers_of_two_and_at_most_four_hundred(n_steps, width):
    scope = scope_of(last_step=n_steps - 1)
    assert scope.bucket_steps == width
    assert -(-n_steps // width) <= MOST_BUCKETS


def test_rates_in_a_bucket_are_merged_from_counters_and_alarms_keep_their_worst(written):
    store, rows = written
    got = queries.trends(store, scope_of(), "spikes")
    bucket = ((pl.col("step") // 4 + 1) * 4 - 1).clip(upper_bound=999)
    want = (
        rows["spikes"]
        .group_by("layer", bucket.alias("step"))
        .agg(
            mfr=pl.col("n_spikes").sum() / (pl.col("n_obs") * pl.col("n_neurons")).sum(),
            dead_frac=pl.col("dead_frac").max(),
            saturated_frac=pl.col("saturated_frac").max(),
        )
    )
    assert got["step"].n_unique() == 250
    assert_frame_equal(got, want, check_row_order=False)


def test_one_layers_trend_is_its_part_of_all_layers_trends(written):
    store, rows = written
    layer = rows["spikes"]["layer"][0]
    got = queries.layer_trend(store, scope_of(), layer, "spikes", "mfr")
    want = queries.trends(store, scope_of(), "spikes").filter(layer=layer)
    assert_frame_equal(got, want.select("step", value="mfr"), check_row_order=False)


def test_a_bucket_holds_the_last_known_figure_where_nothing_is_merged(written):
    store, rows = written
    layer = rows["gradients"]["layer"][0]
    got = queries.layer_trend(store, scope_of(), layer, "gradients", "sg_active_frac")
    of_layer = rows["gradients"].filter(layer=layer).sort("step")
    assert got["value"][-1] == of_layer["sg_active_frac"][-1]
    assert got.height == 250


def test_a_bucket_without_enough_evidence_stays_null(written):
    store, _ = written
    got = queries.trends(store, scope_of(last_step=3), "spikes")
    assert got["dead_frac"].null_count() == got.height


def test_gradients_in_a_bucket_are_merged_as_sums_of_squares(written):
    store, rows = written
    got = queries.trends(store, scope_of(), "gradients")
    part = rows["gradients"].filter(pl.col("step").is_between(8, 11))
    want = part.group_by("layer").agg(
        (pl.col("sum_sq_grad").sum() / pl.col("n_grad").sum()).sqrt().alias("grad_rms")
    )
    assert_frame_equal(got.filter(step=11).select("layer", "grad_rms"), want, check_row_order=False)


def test_the_latest_figures_are_those_of_the_latest_rows_as_stored(written):
    store, rows = written
    got = queries.latest(store, scope_of())
    want = rows["spikes"].filter(step=999).select("layer", "mfr", "dead_frac")
    assert_frame_equal(
        got.filter(pl.col("mfr").is_not_null()).select("layer", "mfr", "dead_frac"),
        want,
        check_row_order=False,
    )


def test_a_latest_null_is_not_replaced_by_an_older_value(tmp_path, make_run):
    run = make_run("blind", n_layers=2, n_steps=0)
    run.write(tmp_path)
    more = make_run("blind", n_layers=2)
    spikes = more.spikes(range(20)).with_columns(
        dead_frac=pl.when(pl.col("step") < 19).then("dead_frac")
    )
    _append(tmp_path, "blind", {"spikes": spikes})
    with open_store(tmp_path) as store:
        got = queries.latest(store, scope_of(run="blind"))
    assert got["dead_frac"].to_list() == [None, None]
    assert got["mfr"].null_count() == 0


def test_the_profile_is_now_and_the_quantiles_of_the_last_observed_steps(written):
    store, rows = written
    got = queries.gradient_profile(store, scope_of(), "grad_norm", n_steps=100)
    recent = rows["gradients"].filter(pl.col("step") >= 900)
    want = recent.group_by("layer").agg(
        now=pl.col("grad_norm").sort_by("step").last(),
        median=pl.col("grad_norm").median(),
        p10=pl.col("grad_norm").quantile(0.1, "linear"),
        p90=pl.col("grad_norm").quantile(0.9, "linear"),
    )
    assert_frame_equal(got, want, check_row_order=False)


def test_a_window_holds_only_its_steps(written):
    store, _ = written
    got = queries.trends(store, scope_of(first_step=950), "spikes")
    assert (got["step"].min(), got["step"].max()) == (950, 999)


def test_histograms_of_a_bucket_are_its_last_one(written):
    store, _ = written
    got = queries.histograms(store, scope_of(), "head.bitlinear", "latent_weight")
    last = store.sql(
        "SELECT counts FROM histograms WHERE layer = 'head.bitlinear' AND kind = 'latent_weight' "
        "ORDER BY step DESC LIMIT 1"
    )
    assert got["counts"][-1].to_list() == last["counts"][0].to_list()
    assert got.height <= MOST_BUCKETS


def test_energy_is_summed_over_layers_and_samples_are_counted_once(tmp_path):
    net = torch.nn.Sequential(
        layer.Linear(8, 6), neuron.IFNode(), layer.Linear(6, 4), neuron.IFNode()
    )
    functional.set_step_mode(net, "m")
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with spikewatch.attach(net, dir=tmp_path, run="e", every=1, quiet=True):
        for _ in range(3):
            functional.reset_net(net)
            net(torch.bernoulli(torch.full((4, 5, 8), 0.5))).sum().backward()
            optimizer.step()
    with open_store(tmp_path) as store:
        got = queries.energy(store, scope_of(run="e", last_step=2))
        rows = store.sql("SELECT * FROM energy")
    assert got.height == 3
    per_step = rows.group_by("step").agg(pl.col("n_sops").sum() / 5).sort("step")
    assert got["sops_per_sample"].to_list() == pytest.approx(per_step["n_sops"].to_list())


def test_layers_come_in_the_order_of_their_depth(written):
    store, _ = written
    names = queries.layers(store, "long")["layer"].to_list()
    assert names[0] == "backbone.stage1.block0.lif"
    assert names[-2:] == ["head.ternary", "head.bitlinear"]


def test_loss_comes_first_among_the_scalars(written):
    store, _ = written
    names = queries.scalars(store, scope_of())["name"].unique(maintain_order=True).to_list()
    assert names == ["loss", "accuracy"]
    assert queries.latest_scalars(store, scope_of())["name"].to_list() == names


def test_every_question_has_an_answer_for_a_run_without_rows(tmp_path, make_run):
    make_run("empty", n_steps=0).write(tmp_path)
    with open_store(tmp_path) as store:
        scope = scope_of(run="empty")
        assert queries.facts(store, "empty").is_empty()
        for table in ("spikes", "gradients", "weights"):
            assert queries.trends(store, scope, table).is_empty()
        assert queries.latest(store, scope).is_empty()
        assert queries.gradient_profile(store, scope, "sg_mean", n_steps=9).is_empty()
        assert queries.scalars(store, scope).is_empty()
        assert queries.histogram_kinds(store, scope).is_empty()
        assert queries.alert_rows(store, "empty").is_empty()


def _append(folder, run, tables):
    from spikewatch.journal import JournalWriter
    from spikewatch.paths import journal_path

    with JournalWriter(journal_path(folder, run, 0)) as journal:
        journal.append(tables)


def test_all_figures_of_a_layer_are_its_latest_known_ones(written):
    store, rows = written
    layer = rows["spikes"]["layer"][0]
    got = dict(queries.figures(store, scope_of(), layer).select("metric", "value").rows())
    for table, name in (("spikes", "mfr"), ("spikes", "dead_frac"), ("gradients", "sg_mean")):
        known = rows[table].filter(layer=layer).drop_nulls(name).sort("step")
        assert got[name] == known[name][-1]
