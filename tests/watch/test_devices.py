"""What is counted on another device, where nothing waits, is what is counted on the host."""

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from spikewatch.collectors import arrays
from spikewatch.collectors.instruments import membrane, spike_counts

from .conftest import make_net, train


_TABLES = ("spikes", "gradients", "neurons", "membrane", "timing")


@pytest.fixture(name="rows")
def _rows(watched, stored):
    """All rows of a training; dead neurons, bitmaps and σ′ among them."""

    def rows(run):
        net = make_net()
        net.fc1.bias.data[:4] = -100.0  # four of twelve neurons never fire
        watch = watched(net, run=run)
        train(net, n_steps=30, watch=watch)
        watch.close()
        order = f"WHERE run = '{run}' ORDER BY step, phase, layer"
        found = {t: stored(f"SELECT * FROM {t} {order}") for t in _TABLES}
        return {t: frame.drop("run", "at") for t, frame in found.items()}

    return rows


def test_host_and_device_count_the_same(rows, monkeypatch):
    on_host = rows("host")
    for module in (arrays, membrane, spike_counts):
        monkeypatch.setattr(module, "on_host", lambda _: False)
    on_device = rows("device")
    for table, frame in on_host.items():
        assert_frame_equal(frame, on_device[table], rel_tol=1e-6)
    dead = on_host["spikes"].filter(pl.col("layer") == "lif1", pl.col("n_dead") == 4)
    assert dead.height > 10
    assert dead["silent"].drop_nulls().len() > 0
    assert on_host["gradients"]["n_dead_lost"].drop_nulls().max() == 4
