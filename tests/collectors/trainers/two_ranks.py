"""One of two ranks, run as a script: `two_ranks.py TRAINER`. Rank 0 never spikes, and rank 1 does.

A rule on spikes asks for the training to stop. Prints how many steps were made.
"""

import os
import sys
import warnings
from pathlib import Path


warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parents[3]))

import torch
import torch.distributed as dist

from spikewatch.alerts.rule import Rule
from tests.collectors.trainers import little_net


SPIKES = Rule(name="spikes", expr="mfr > 0", severity="info", actions=("stop",))
OPTIONS = {"every": 1, "rules": [SPIKES], "quiet": True, "ask_every": 5}
MOST = 100_000


class HalfDead(little_net.Snn):
    """Gets nothing on rank 0, and so never spikes there."""

    def __init__(self):
        super().__init__(bias=False)

    def forward(self, x):
        return super().forward(x * dist.get_rank())


class OfTwoRanks(little_net.Training):
    """What the integrations' own tests train, on two ranks."""


def with_lightning():
    from tests.collectors.trainers.with_lightning import Lightning

    os.environ.pop("RANK", None)  # its own launcher sets none
    training = Lightning(HalfDead(), OPTIONS, trainer={"strategy": "ddp", "devices": 2})
    training.fit(MOST)
    return training


def with_transformers():
    from tests.collectors.trainers.with_transformers import Transformers

    training = Transformers(HalfDead(), OPTIONS, trainer={"ddp_backend": "gloo"})
    training.fit(MOST)
    return training


def with_ignite():
    import ignite.distributed as idist

    from tests.collectors.trainers.with_ignite import Ignite

    def train(_):
        net = HalfDead()
        training = Ignite(net, OPTIONS)
        training.net = idist.auto_model(net)
        training.fit(MOST)
        return training

    with idist.Parallel(backend="gloo") as parallel:
        done = []
        parallel.run(lambda rank: done.append(train(rank)))
    return done[0]


def with_accelerate():
    from tests.collectors.trainers.with_accelerate import Accelerate

    options = {name: x for name, x in OPTIONS.items() if name != "ask_every"}
    training = Accelerate(HalfDead(), options)
    training.fit(MOST)
    return training


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    training = globals()[f"with_{sys.argv[1]}"]()
    print(len(training.losses), flush=True)
