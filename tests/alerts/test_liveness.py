from datetime import timedelta

import polars as pl
import pytest

from spikewatch.alerts.engine import Engine
from spikewatch.alerts.loading import load_rules

from .conftest import NOON


DEAD = {"n_dead": 50, "n_carrying": 60}
LAYERS = [("lif", 0, "spiking"), ("tern", 1, "spiking"), ("fc", 2, "ternary")]


@pytest.fixture
def engine():
    engine = Engine(load_rules(), run="r", rank=0)
    engine.place(LAYERS)
    return engine


def alerts(out, rule):
    return out.filter(pl.col("rule") == rule, pl.col("state").is_in(["firing", "resolved"]))


def test_a_layer_that_is_not_called_any_more_is_told_and_its_rules_have_no_data(engine, wide):
    engine.feed(wide(range(30)))
    out = engine.feed(wide(range(30, 60)).filter(pl.col("layer") != "tern"))
    told = alerts(out, "layer-goes-quiet")
    assert told.select("layer", "step", "state").rows() == [("tern", 50, "firing")]
    lost = out.filter(state="no-data")
    assert set(lost["layer"]) == {"tern"}
    assert set(lost["step"]) == {50}
    assert "low-rate" in lost["rule"].to_list()


def test_a_layer_that_comes_back_is_judged_again(engine, wide):
    engine.feed(wide(range(30)))
    engine.feed(wide(range(30, 60)).filter(pl.col("layer") != "tern"))
    out = engine.feed(wide(range(60, 70)))
    assert alerts(out, "layer-goes-quiet")["state"].to_list() == ["resolved"]
    assert out.filter(rule="low-rate", layer="tern")["state"].to_list() == ["ok"]


def test_who_comes_and_goes_anyway_is_not_told(engine, wide):
    for begin in range(0, 400, 10):
        part = wide(range(begin, begin + 10))
        out = engine.feed(part if begin % 70 == 0 else part.filter(pl.col("layer") != "tern"))
        if begin > 70:
            assert alerts(out, "layer-goes-quiet").filter(state="firing").is_empty()


def test_layers_that_nobody_watches_and_scalars_may_be_missing(engine, wide):
    engine.feed(wide(range(30)).with_columns(layer=pl.col("layer").replace("tern", "synapse")))
    rest = wide(range(30, 80)).filter(pl.col("layer").is_in(["lif", "fc"]))
    assert alerts(engine.feed(rest), "layer-goes-quiet").is_empty()


def test_a_layer_with_weights_of_eight_bits_comes_at_a_slower_pace(wide):
    engine = Engine(load_rules(), run="r", rank=0)
    engine.place([("lif", 0, "quantized"), *LAYERS[1:]])
    for begin in range(0, 400, 50):
        engine.feed(wide(range(begin, begin + 1)))
        rest = wide(range(begin + 1, begin + 50)).filter(pl.col("layer") != "lif")
        assert alerts(engine.feed(rest), "layer-goes-quiet").is_empty()


def test_a_firing_alert_is_not_ended_by_silence(engine, wide):
    engine.feed(wide(range(100, 110), lif={"n_dead": 50}))
    out = engine.feed(wide(range(110, 150)).filter(pl.col("layer") != "lif"))
    assert out.filter(rule="many-dead-neurons", layer="lif").is_empty()


def test_a_training_that_stalls_is_told_while_it_does(engine, wide):
    engine.feed(wide(range(30)))
    last = NOON + timedelta(seconds=29)
    assert engine.tick(last + timedelta(minutes=29, seconds=59)).is_empty() is False
    out = engine.tick(last + timedelta(minutes=30))
    (row,) = alerts(out, "training-stalls").rows(named=True)
    assert (row["state"], row["layer"], row["value"]) == ("firing", "(training)", 1800.0)
    assert row["at"] == last + timedelta(minutes=30)
    later = wide(range(30, 31)).with_columns(at=pl.lit(last + timedelta(minutes=40)))
    assert alerts(engine.feed(later), "training-stalls")["state"].to_list() == ["resolved"]


def test_slow_steps_are_no_stall(engine, wide):
    for step in range(5):
        at = pl.lit(NOON + timedelta(minutes=20 * step))
        out = engine.feed(wide(range(step, step + 1)).with_columns(at=at))
    out = engine.tick(NOON + timedelta(minutes=80 + 180))
    assert alerts(out, "training-stalls").is_empty()


def test_a_stall_is_the_same_whether_it_was_watched_or_is_read_from_history(engine, wide):
    late = wide(range(30, 31)).with_columns(at=pl.lit(NOON + timedelta(hours=1)))
    live = [engine.feed(wide(range(30)))]
    live += [engine.tick(NOON + timedelta(minutes=m)) for m in range(1, 60)]
    live += [engine.feed(late)]
    other = Engine(load_rules(), run="r", rank=0)
    other.place(LAYERS)
    assert pl.concat(live).equals(other.feed(pl.concat([wide(range(30)), late])))


def test_a_layer_that_was_taken_out_is_not_missed_and_what_fires_on_it_ends(engine, wide):
    ill = wide(range(100, 130), lif=DEAD)
    rest = wide(range(130, 170)).filter(pl.col("layer") != "lif")
    fired = engine.feed(ill)
    assert ("many-dead-neurons", "lif") in fired.filter(state="firing")[["rule", "layer"]].rows()
    engine.end_layers(removed("lif", 130))
    out = engine.feed(rest)
    ended = out.filter(layer="lif")
    assert alerts(out, "many-dead-neurons")[["layer", "step", "state"]].rows() == [
        ("lif", 130, "resolved")
    ]
    assert set(ended["step"]) == {130}
    assert set(ended["state"]) == {"resolved", "no-data"}
    assert alerts(out, "layer-goes-quiet").is_empty()


def test_another_layer_of_the_same_name_is_judged_anew_in_the_step_that_it_comes_in(engine, wide):
    engine.feed(wide(range(100, 130), lif=DEAD))
    engine.end_layers(removed("lif", 130))
    out = engine.feed(wide(range(130, 140))).filter(rule="many-dead-neurons", layer="lif")
    assert out[["step", "state"]].rows() == [(130, "resolved"), (130, "ok")]


def test_a_layer_ends_the_same_however_its_rows_come_in(wide):
    frames = [wide(range(100, 130), lif=DEAD), wide(range(130, 150))]
    outcomes = []
    for parts in (frames, [pl.concat(frames)]):
        engine = Engine(load_rules(), run="r", rank=0)
        engine.place(LAYERS)
        engine.end_layers(removed("lif", 130))
        outcomes.append(pl.concat([engine.feed(part) for part in parts]))
    assert outcomes[0].equals(outcomes[1])


def removed(layer, step):
    """The event of it, between the rows of that step and those of the one before."""
    at = NOON + timedelta(seconds=step - 0.5)
    return pl.DataFrame({"kind": ["removed"], "step": [step], "at": [at], "layer": [layer]})
