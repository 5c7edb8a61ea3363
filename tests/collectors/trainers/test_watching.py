"""What the integrations share, without a trainer."""

import pytest
import torch

import spikewatch
from spikewatch.collectors.trainers.watching import Watching

from .little_net import STOPS, make_net


@pytest.fixture(name="rank_of_two")
def _rank_of_two(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)


@pytest.mark.parametrize("run", ["first", None])
def test_ranks_name_their_next_run_alike_without_asking_each_other(rank_of_two, states, run):
    watching = Watching({"quiet": True} | ({"run": run} if run else {}))
    net = make_net()
    for _ in range(3):
        watching.begin(net, n_ranks=2)
        watching.end()
    name = run or "job-29500"
    assert [n for n, _ in states()] == [name, f"{name}-2", f"{name}-3"]


def test_ranks_ask_each_other_only_where_a_rule_can_stop_and_only_now_and_then():
    asked = []

    def any_rank(flag):
        asked.append(flag)
        return len(asked) == 2

    for rules in ([STOPS], []):
        net, watching = make_net(), Watching({"quiet": True, "rules": rules}, ask_every=4)
        watching.begin(net)
        told = [watching.is_to_stop(any_rank) for _ in range(9)]
        watching.end()
        assert told == [i == 7 and rules != [] for i in range(9)]
    assert asked == [False, False]


@pytest.mark.parametrize("ask_every", [0, -1, 2.5, True, None])
def test_an_interval_that_is_none_is_refused(ask_every):
    with pytest.raises(spikewatch.AttachError, match="`ask_every` was"):
        Watching({}, ask_every=ask_every)


def test_what_is_wrong_with_the_options_is_told_as_attach_tells_it():
    watching = Watching({"every": 0})
    with pytest.raises(spikewatch.AttachError, match="every"):
        watching.begin(make_net())
    assert watching.watch is None


def test_figures_that_are_no_numbers_are_left_out(asked):
    net, watching = make_net(), Watching({"quiet": True})
    watching.log({"before": 1.0})
    watching.begin(net)
    figures = {"a": 1, "b": torch.tensor([2.0]), "c": torch.zeros(2), "d": "x", "e": None}
    watching.log(figures | {"f": True, "g": torch.tensor(3.0).half()})
    watching.log({"h": 4.0}, phase="eval")
    watching.end()
    watching.log({"after": 1.0})
    rows = asked("SELECT phase, name, value FROM scalars ORDER BY name")
    train = [("train", "a", 1.0), ("train", "b", 2.0), ("train", "g", 3.0)]
    assert rows == [*train, ("eval", "h", 4.0)]
