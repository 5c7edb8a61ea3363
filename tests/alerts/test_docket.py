"""When the rules judge: at once where that is cheap, else what came in meanwhile all together."""

import polars as pl
import pytest

from spikewatch.alerts.docket import Docket


@pytest.mark.parametrize(("spent_s", "rest_s"), [(0.001, 0.1), (0.01, 1.0), (5.0, 1.7)])
def test_the_rules_rest_by_what_they_took_but_never_for_long(spent_s, rest_s):
    now = 100.0
    docket = Docket(clock=lambda: now)
    assert docket.is_due
    docket.rest(spent_s)
    now = 100.0 + rest_s - 1e-3
    assert not docket.is_due
    now = 100.0 + rest_s + 1e-3
    assert docket.is_due


def test_what_came_in_meanwhile_is_judged_together_in_its_order_and_once():
    docket = Docket()
    docket.add({"spikes": pl.DataFrame({"step": [1, 2]}), "events": pl.DataFrame({"step": [1]})})
    docket.add({})
    docket.add({"spikes": pl.DataFrame({"step": [3]})})
    taken = docket.take()
    assert {name: frame["step"].to_list() for name, frame in taken.items()} == {
        "spikes": [1, 2, 3],
        "events": [1],
    }
    assert docket.take() == {}
