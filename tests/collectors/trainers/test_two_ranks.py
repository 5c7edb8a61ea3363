"""A rule that fires on one of two ranks stops both."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


TRAINERS = ["lightning", "transformers", "ignite", "accelerate"]


@pytest.mark.slow
@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_rule_that_fires_on_one_rank_stops_both_after_the_same_batch(trainer, asked, tmp_path):
    script = [sys.executable, str(Path(__file__).with_name("two_ranks.py")), trainer]
    settings = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    if trainer == "lightning":
        environments = [settings]  # it starts the other one itself, and sets no RANK
    else:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
        environments = [settings | address | {"RANK": r, "LOCAL_RANK": r} for r in "01"]
    processes = [
        subprocess.Popen(script, env=e, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for e in environments
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors.decode()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    n_batches = [int((tmp_path / f"batches-{rank}").read_text()) for rank in "01"]
    assert n_batches[0] == n_batches[1] < 100_000
    assert asked("SELECT DISTINCT rank FROM alerts WHERE state = 'firing'") == [(1,)]
    assert asked("SELECT DISTINCT rank FROM spikes ORDER BY rank") == [(0,), (1,)]
    assert len(asked("SELECT DISTINCT run FROM spikes")) == 1
    assert asked("SELECT message FROM events WHERE kind IN ('fault', 'exception')") == []


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
