"""kill -9 at random moments: of the process that writes, and of the one that ingests.

Every frame holds the same step in two tables, so a torn frame or a doubled one is found out by
counting. What the writer says it appended went through a pipe after the append returned.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spikewatch.journal import is_being_written, read_frames
from spikewatch.paths import journal_path
from spikewatch.store import open_store


pytestmark = pytest.mark.slow

N_KILLS = 20

# About 200 rows a second, as a run with many layers writes them: 10 rows, 20 times a second.
WRITER = """
import sys, time
from pathlib import Path
import polars as pl
from spikewatch.journal import JournalWriter
from spikewatch.metrics import KEYS, RECORDS, TABLES

ROWS_PER_S, LAYERS = 200, 8
journal = JournalWriter(Path(sys.argv[1]))
spikes = TABLES["spikes"].compute(pl.DataFrame({"layer": [f"lif{i}" for i in range(LAYERS)]}))
scalars = pl.DataFrame({c: [None] * 2 for c in RECORDS["scalars"]}, schema=RECORDS["scalars"])
began = time.monotonic()
step = 0
while True:
    at = pl.lit(step, pl.Int64).alias("step")
    journal.append({"spikes": spikes.with_columns(at), "scalars": scalars.with_columns(at)})
    print(step, time.monotonic(), flush=True)
    step += 1
    time.sleep(max(0, began + step * (LAYERS + 2) / ROWS_PER_S - time.monotonic()))
"""

# Trains as users do. One process imports torch and forks a trainer per line that it reads.
TRAINERS = """
import os, signal, sys, time
import torch
from torch import nn
import spikewatch
from spikewatch.zoo import LIF

def train(run):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(4, 8), LIF()

        def forward(self, x):
            return self.lif(self.fc(x))[0]

    torch.set_num_threads(1)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watch = spikewatch.attach(model, run=run, dir=sys.argv[1], every=1, quiet=True)
    for step in range(100_000):
        loss = (model(3 * torch.rand(5, 4)) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        watch.log(loss=loss.item())
        optimizer.step()
        os.write(1, f"{run} {os.getpid()} {step}\\n".encode())
        time.sleep(0.02)

spikewatch.attach  # imported once, for all
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.alarm(400)  # whatever hangs ends, and the test with it
for line in sys.stdin:
    if os.fork() == 0:
        signal.alarm(100)
        try:
            train(line.strip())
        finally:
            print("crashed", flush=True)
            os._exit(1)
"""

INGESTER = """
import sys
from spikewatch.store import ingest, open_store
ingest.BATCH_BYTES = 20_000
with open_store(sys.argv[1]) as store:
    assert not store.is_replica
    print("open", flush=True)
    while True:
        store.refresh()
"""


def start(code: str, *args: object) -> subprocess.Popen:
    argv = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen) -> str:
    """Kill it; what it had said is returned."""
    os.kill(process.pid, signal.SIGKILL)
    said, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    return said


def counts(store, run: str) -> list[tuple[int, int, int]]:
    """(step, rows in spikes, rows in scalars) of each step that has any."""
    return store.sql(
        """SELECT step, count(*) FILTER (t = 's'), count(*) FILTER (t = 'l') FROM (
             SELECT step, 's' AS t FROM spikes WHERE run = $run
             UNION ALL SELECT step, 'l' AS t FROM scalars WHERE run = $run
           ) GROUP BY step ORDER BY step""",
        {"run": run},
    ).rows()


def test_killing_the_writer_at_any_moment_loses_at_most_a_second_and_tears_nothing(tmp_path):
    random.seed(7)
    runs = [f"run{i}" for i in range(N_KILLS)]
    said: dict[str, list[tuple[int, float]]] = {}
    with open_store(tmp_path) as store:  # ingests all the while
        for pair in zip(runs[::2], runs[1::2], strict=True):
            writers = {run: start(WRITER, journal_path(tmp_path, run, 0)) for run in pair}
            first = {run: w.stdout.readline() for run, w in writers.items()}
            for run, writer in writers.items():
                deadline = time.monotonic() + random.uniform(0, 0.6)
                while time.monotonic() < deadline:
                    store.refresh()
                assert is_being_written(journal_path(tmp_path, run, 0))
                whole_lines = (first[run] + kill(writer)).rpartition("\n")[0].splitlines()
                said[run] = [(int(s), float(t)) for s, t in map(str.split, whole_lines)]
                assert not is_being_written(journal_path(tmp_path, run, 0))
        for run in runs:
            last_said = said[run][-1][0]
            found = counts(store, run)
            steps = [step for step, _, _ in found]
            assert steps == list(range(len(steps))), run
            assert {(n, m) for _, n, m in found} == {(8, 2)}, run
            # All that the writer knew to be written is there, and at most what it wrote last more.
            assert steps[-1] in (last_said, last_said + 1), run
        states = store.runs()
        assert set(states["state"]) == {"lost"}
        assert states.height == N_KILLS


def test_killing_a_training_loses_at_most_its_last_second(tmp_path):
    random.seed(9)
    runs = [f"run{i}" for i in range(N_KILLS)]
    kill_at_step = {run: random.randrange(1, 110) for run in runs}
    last_step: dict[str, int] = {}
    argv = [sys.executable, "-u", "-c", TRAINERS, str(tmp_path)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as nursery:
        waiting, killed = list(runs), set()
        nursery.stdin.write("".join(f"{waiting.pop()}\n" for _ in range(4)))
        nursery.stdin.flush()
        for line in nursery.stdout:
            assert line != "crashed\n"
            run, pid, step = line.split()
            last_step[run] = int(step)
            if int(step) < kill_at_step[run] or run in killed:
                continue
            os.kill(int(pid), signal.SIGKILL)
            killed.add(run)
            if waiting:
                nursery.stdin.write(f"{waiting.pop()}\n")
                nursery.stdin.flush()
            elif len(killed) == len(runs):
                nursery.stdin.close()
    with open_store(tmp_path) as store:
        for run in runs:
            for table in ("spikes", "gradients", "scalars"):
                query = f"SELECT step FROM {table} WHERE run = ? ORDER BY step"
                steps = store.sql(query, [run])["step"].to_list()
                assert steps == list(range(len(steps))), (run, table)
                # A second of training: counted in steps, for this machine may be busy.
                assert last_step[run] + 1 - len(steps) <= 50, (run, table)
        assert store.sql("SELECT count(*) FROM spikes").item() > 100
        assert set(store.runs()["state"]) == {"lost"}


def test_killing_the_ingesting_process_stores_each_row_once(tmp_path):
    random.seed(8)
    journal = journal_path(tmp_path, "run", 0)
    writer = start(WRITER.replace("ROWS_PER_S, LAYERS = 200", "ROWS_PER_S, LAYERS = 2000"), journal)
    try:
        writer.stdout.readline()
        for _ in range(N_KILLS):
            ingester = start(INGESTER, tmp_path)
            assert ingester.stdout.readline() == "open\n"
            time.sleep(random.uniform(0, 0.25))
            kill(ingester)
    finally:
        kill(writer)
    n_frames = sum(1 for _ in read_frames(journal))
    assert n_frames > 100
    with open_store(tmp_path) as store:
        assert not store.is_replica
        assert counts(store, "run") == [(step, 8, 2) for step in range(n_frames)]
    assert not list(Path(tmp_path).glob("*.aside-*"))
