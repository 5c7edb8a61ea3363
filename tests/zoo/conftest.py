"""Each model of the zoo, trained once while it is watched."""

from dataclasses import dataclass

import polars as pl
import pytest
import torch

import spikewatch
from spikewatch.metrics import TABLES
from spikewatch.zoo.models import MODELS
from spikewatch.zoo.training import Training


# Fewest steps that show clearly that a model learns.
STEPS = {"spike-gpt": 60}
DEFAULT_STEPS = 66


@dataclass
class Trained:
    """A training that has ended, what it told, and what was stored of it."""

    n_steps: int
    training: Training
    told: list[dict[str, float]]
    tables: dict[str, pl.DataFrame]

    def last(self, figure):
        return [result[figure] for result in self.told if figure in result][-1]

    def shown(self, table, layer):
        """Metrics of a layer that have a value in some row of a table, and those that have none."""
        rows = self.tables[table].filter(pl.col("layer") == layer, pl.col("phase") == "train")
        assert rows.height, f"{layer} is not in {table}"
        shown = {m.name for m in TABLES[table].metrics if rows[m.name].is_not_null().any()}
        return shown, {m.name for m in TABLES[table].metrics} - shown

    def layers(self, table):
        return set(self.tables[table].filter(pl.col("phase") == "train")["layer"])


@pytest.fixture(scope="session", name="trained")
def _trained(tmp_path_factory):
    done = {}

    def trained(name):
        if name not in done:
            done[name] = _train(name, tmp_path_factory.mktemp(name))
        return done[name]

    return trained


def _train(name, folder):
    torch.manual_seed(0)
    model = MODELS[name]
    train, test = model.data(seed=0)
    training = model.train(model.build(), train)
    told, n_steps = [], STEPS.get(name, DEFAULT_STEPS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPIKEWATCH_ON_ERROR", "raise")
        teacher = getattr(training, "teacher", None)
        with spikewatch.attach(
            training.net, dir=folder, every=1, quiet=True, teacher=teacher
        ) as watch:
            for result in training.fit(train, test, seed=0, n_steps=n_steps):
                watch.log(**result)
                told.append(result)
    with spikewatch.open_store(folder) as store:
        names = [*TABLES, "layers", "events", "alerts", "scalars"]
        tables = {n: store.sql(f'FROM "{n}"') for n in names}
    return Trained(n_steps, training, told, tables)
