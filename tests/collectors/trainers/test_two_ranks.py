"""A rule that fires on one of two ranks stops both."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["lightning", "accelerate", "transformers", "ignite"])
def test_a_rule_that_fires_on_one_rank_stops_both_after_the_same_step(trainer, asked):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = [sys.executable, str(Path(__file__).with_name("two_ranks.py")), trainer]
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment |= {"WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": ""}
    ranks = [
        subprocess.Popen(
            script,
            env=environment | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    n_steps = []
    for rank in ranks:
        told, errors = rank.communicate(timeout=100)
        assert rank.returncode == 0, errors
        n_steps.append(int(told.split()[-1]))
    assert n_steps[0] == n_steps[1] < 100_000
    assert asked("SELECT DISTINCT rank FROM alerts WHERE state = 'firing'") == [(1,)]
    assert asked("SELECT DISTINCT rank FROM spikes ORDER BY rank") == [(0,), (1,)]
    assert len(asked("SELECT DISTINCT run FROM spikes")) == 1
    assert asked("SELECT message FROM events WHERE kind IN ('fault', 'exception')") == []
