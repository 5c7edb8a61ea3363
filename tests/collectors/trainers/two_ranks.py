"""One of two ranks, run as a script: `two_ranks.py TRAINER`. Rank 0 never spikes, and rank 1 does.

A rule on spikes asks for the training to stop. Writes how many batches were trained.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from spikewatch.alerts.rule import Rule


sys.path.insert(0, str(Path(__file__).parents[3]))

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


def with_lightning():
    from tests.collectors.trainers.with_lightning import Lightning

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
    rank = os.environ.get("LOCAL_RANK", "0")
    Path(f"batches-{rank}").write_text(str(len(training.losses)))
