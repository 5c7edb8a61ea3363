import json

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest

from spikewatch.app.charts.bins import histogram_map, outside_share
from spikewatch.app.charts.heatmaps import dead_map, rate_map
from spikewatch.app.charts.lines import line_lanes
from spikewatch.app.charts.profile import depth_profile
from spikewatch.app.charts.shares import ternary_shares
from spikewatch.app.charts.style import matrix, percent, short_label, short_labels
from spikewatch.app.charts.timeline import alert_timeline
from spikewatch.app.live_plot import picture


LAYERS = ["in", "mid", "out"]
RATES = pl.DataFrame(
    {
        "layer": ["in", "mid", "in", "mid", "out"],
        "step": [0, 0, 10, 10, 10],
        "mfr": [0.25, 0.04, 0.09, None, 0.0],
        "dead_frac": [None, 0.0, 0.04, 0.36, 1.0],
    }
)


def heatmaps(fig):
    return [t for t in fig.data if isinstance(t, go.Heatmap)]


def test_a_matrix_tells_a_null_from_a_missing_row_and_from_zero():
    steps, values, present = matrix(RATES, LAYERS, "mfr")
    assert steps.tolist() == [0, 10]
    np.testing.assert_allclose(values, [[0.25, 0.09], [0.04, np.nan], [np.nan, 0.0]], rtol=1e-6)
    assert present.tolist() == [[True, True], [True, True], [False, True]]


def test_a_matrix_leaves_out_layers_that_are_not_asked_for():
    _, values, _ = matrix(RATES, ["out"], "mfr")
    assert values.shape == (1, 1)


def test_the_rate_map_has_the_input_on_top_and_a_fixed_range_of_colours():
    fig = rate_map(RATES, LAYERS)
    assert list(fig.layout.yaxis.categoryarray) == LAYERS
    low_end, high_end = fig.layout.yaxis.range
    assert low_end > high_end, "the axis runs downwards"
    quiet = rate_map(RATES.with_columns(pl.col("mfr") / 100), LAYERS)
    (a,), (b,) = heatmaps(fig), heatmaps(quiet)
    assert (a.zmin, a.zmax, a.colorscale) == (b.zmin, b.zmax, b.colorscale)


def test_the_rate_map_says_the_rate_itself_while_its_colour_is_the_root():
    (heat,) = heatmaps(rate_map(RATES, LAYERS))
    assert heat.customdata[0][0] == pytest.approx(0.25)
    assert heat.z[0][0] == pytest.approx(0.5)
    for value, text in zip(heat.colorbar.tickvals, heat.colorbar.ticktext, strict=True):
        shown = float(text.strip("≥ %")) / 100
        assert value**2 == pytest.approx(shown)


def test_dead_fraction_is_grey_up_to_the_rules_threshold_and_coloured_above():
    heat = heatmaps(dead_map(RATES, LAYERS, threshold=0.05))[-1]
    (at0, grey), (at, still_grey), (start, amber), *_ = heat.colorscale
    assert (at0, at, start) == (0.0, pytest.approx(0.05**0.5), pytest.approx(0.05**0.5))
    assert grey == still_grey != amber
    assert "5 %" in heat.colorbar.ticktext


def test_the_colour_of_dead_neurons_follows_another_threshold():
    heat = heatmaps(dead_map(RATES, LAYERS, threshold=0.25))[-1]
    assert heat.colorscale[2][0] == pytest.approx(0.5)


def test_too_little_evidence_looks_different_from_no_dead_neurons():
    unknown, known = heatmaps(dead_map(RATES, LAYERS, threshold=0.05))
    assert unknown.z[0][0] == 1, "in, step 0: NULL"
    assert np.isnan(unknown.z[1][0]), "mid, step 0: exactly 0"
    assert np.isnan(unknown.z[2][0]), "out, step 0: no row at all"
    assert known.z[1][0] == 0
    assert np.isnan(known.z[0][0])
    assert unknown.colorscale[0][1] not in [c for _, c in known.colorscale]


def test_without_nulls_nothing_is_said_of_evidence():
    fig = dead_map(RATES.drop_nulls(), LAYERS, threshold=None)
    assert len(heatmaps(fig)) == 1
    assert "evidence" not in fig.layout.xaxis.title.text


PROFILE = pl.DataFrame(
    {
        "layer": LAYERS,
        "now": [1e-4, 0.0, 1e-2],
        "median": [2e-4, 1e-3, 1e-2],
        "p10": [1e-4, 0.0, 5e-3],
        "p90": [4e-4, 2e-3, 2e-2],
    }
)


def test_a_gradient_that_is_exactly_zero_has_a_mark_on_the_log_axis():
    fig = depth_profile(PROFILE, LAYERS, label="norm", n_steps=100)
    traces = {t.name: t for t in fig.data}
    assert fig.layout.xaxis.type == "log"
    assert list(traces["exactly 0"].y) == ["mid"]
    assert traces["exactly 0"].x[0] > 0, "a log axis has no 0"
    assert traces["now"].x[1] is None or np.isnan(traces["now"].x[1])


def test_a_profile_of_healthy_layers_has_no_mark_for_zero():
    fig = depth_profile(PROFILE.with_columns(now=pl.lit(1e-3)), LAYERS, label="norm", n_steps=9)
    assert "exactly 0" not in [t.name for t in fig.data]
    assert "p10–p90, last 9" in [t.name for t in fig.data]


def test_ternary_shares_stack_in_the_order_of_their_values():
    shares = pl.DataFrame(
        {
            "step": [0, 1],
            "weight_negative_frac": [0.3, 0.1],
            "weight_zero_frac": [0.4, 0.8],
            "weight_positive_frac": [0.3, 0.1],
        }
    )
    fig = ternary_shares(shares)
    assert [t.name for t in fig.data] == ["−1", "0", "+1"]
    assert len({t.stackgroup for t in fig.data}) == 1
    assert list(fig.layout.yaxis.range) == [0, 1]


def histogram_rows(edges):
    return pl.DataFrame(
        {
            "step": [0, 5],
            "edges": [edges, edges],
            "counts": [[0, 1, 3, 0], [0, 2, 2, 0]],
            "below": [0, 1],
            "above": [0, 3],
        }
    )


def test_octave_edges_are_drawn_on_a_log_axis_and_even_ones_are_not():
    log = histogram_map(histogram_rows([0.25, 0.5, 1.0, 2.0, 4.0]), label="α", bounds=(0.3, 3.0))
    even = histogram_map(histogram_rows([-2.0, -1.0, 0.0, 1.0, 2.0]), label="latent weight")
    assert (log.layout.yaxis.type, even.layout.yaxis.type) == ("log", None)
    assert [round(s.y0, 3) for s in log.layout.shapes] == [0.3, 3.0]
    np.testing.assert_allclose(heatmaps(even)[0].customdata[:, 0], [0, 0.25, 0.75, 0])


def test_what_lies_beyond_the_bins_is_told():
    assert outside_share(histogram_rows([0.0, 1.0, 2.0, 3.0, 4.0])) == 0.5


def test_each_scalar_has_a_lane_of_its_own_scale():
    rows = pl.DataFrame(
        {
            "name": ["loss", "loss", "accuracy", "loss"],
            "phase": ["train", "train", "train", "eval"],
            "step": [0, 1, 1, 1],
            "value": [2.0, 1.0, 0.5, 1.5],
        }
    )
    fig = line_lanes(rows, percent=["accuracy"])
    assert {t.yaxis for t in fig.data} == {"y", "y2"}
    assert fig.layout.yaxis2.tickformat.endswith("%")
    low, high = fig.layout.yaxis.domain
    assert fig.layout.yaxis2.domain[1] < low < high <= 1


SPANS = pl.DataFrame(
    {
        "rule": ["dead-neurons", "low-rate", "bad-loss"],
        "layer": ["mid", "in", ""],
        "severity": ["critical", "info", "warning"],
        "state": ["firing", "resolved", "pending"],
        "begin": [40, 10, 99],
        "end": [100, 20, 100],
        "value_text": ["dead 9 %", "rate 1 %", "nan"],
    }
)


def test_alert_bars_begin_at_since_step_and_end_where_they_were_resolved():
    fig = alert_timeline(SPANS, first_step=0, last_step=100)
    bars = {t.name: t for t in fig.data}
    firing, resolved = bars["critical, firing"], bars["info, resolved"]
    assert (firing.base[0], firing.base[0] + firing.x[0]) == (40, 100)
    assert (resolved.base[0], resolved.base[0] + resolved.x[0]) == (10, 20)
    assert firing.marker.color != resolved.marker.color
    assert list(fig.layout.yaxis.ticktext) == [
        "<b>dead-neurons</b><br>mid",
        "<b>low-rate</b><br>in",
        "<b>bad-loss</b>",
    ]


@pytest.mark.parametrize("n_layers", [1, 60])
def test_pictures_stay_readable_with_any_number_of_layers(n_layers):
    names = [f"layer{i}" for i in range(n_layers)]
    rates = pl.DataFrame({"layer": names, "step": [0] * n_layers, "mfr": [0.1] * n_layers})
    height = rate_map(rates, names).layout.height
    assert 240 <= height <= 1200
    assert n_layers == 1 or height / n_layers >= 14


def test_long_names_keep_their_end_cut_at_a_dot_and_stay_distinct():
    assert short_label("backbone.stage1.block0.lif") == "…stage1.block0.lif"
    assert short_label("lif1") == "lif1"
    assert len(short_label("x" * 80)) == 24
    twins = ["a" * 30 + ".lif", "b" * 30 + ".lif"]
    assert short_labels(twins) == twins


def test_percent_appears_only_here_and_nothing_is_not_zero():
    assert percent(0.0512) == "5.1 %"
    assert percent(0.0) == "0.0 %"
    assert percent(None) == "–"


def test_a_finished_picture_is_valid_json_with_its_height_and_zoom_key():
    fig = rate_map(RATES, LAYERS)
    done = picture(fig, alt="rates", keep="run-1")
    again = go.Figure(json.loads(done.figure))
    assert (done.height, again.layout.uirevision) == (fig.layout.height, "run-1")
