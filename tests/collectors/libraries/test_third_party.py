"""A library that somebody else adds: a distribution with an entry point, found by `attach`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


README = (Path(__file__).parents[3] / "README.md").read_text("utf-8")
MODULE, POINT = re.search(
    r"```python\n(# mylib_spikewatch.py.*?)```.*?```toml\n(.*?)```", README, re.DOTALL
).groups()

NEURONS = """
from typing import NamedTuple

import torch

class Out(NamedTuple):
    mem: torch.Tensor
    spikes: torch.Tensor

class Base(torch.nn.Module):
    def forward(self, x):
        return Out(x, (x > 0.5).float())
"""

TRAINING = """
import torch

import spikewatch
from mylib.neurons import Base

net = torch.nn.Sequential(Base())
with spikewatch.attach(net, run="mine", every=1) as watch:
    assert [(x.library, x.kind) for x in watch.layers] == [("mylib", "spiking")], watch.layers
    spikes = net(torch.rand(5, 4, 3)).spikes
row = spikewatch.open_store("spikewatch-runs").sql("SELECT n_obs, n_spikes FROM spikes").row(0)
assert row == (20, int(spikes.sum())), row
"""


@pytest.fixture(name="site")
def _site(tmp_path):
    """What installing the package of the README leaves on the path."""
    (tmp_path / "mylib").mkdir()
    (tmp_path / "mylib" / "neurons.py").write_text(NEURONS, "utf-8")
    (tmp_path / "mylib_spikewatch.py").write_text(MODULE, "utf-8")
    info = tmp_path / "mylib-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mylib\nVersion: 1.0\n", "utf-8")
    group = re.search(r'entry-points\."(.*?)"', POINT)[1]
    name, value = re.search(r'^(\w+) = "(.*?)"', POINT, re.MULTILINE).groups()
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n", "utf-8")
    return tmp_path


def run(site, script):
    return subprocess.run(
        [sys.executable, "-c", script], cwd=site, capture_output=True, text=True, check=False
    )


def test_the_library_that_the_readme_shows_is_found_by_attach(site):
    assert len([line for line in MODULE.splitlines() if line.strip()]) <= 15
    ran = run(site, TRAINING)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("code", "told"),
    [("LIBRARY = 3", "is a int. It must name"), ("import nothing_like_it", "ModuleNotFoundError")],
)
def test_one_that_cannot_be_used_is_named_with_what_is_wrong(site, code, told):
    (site / "mylib_spikewatch.py").write_text(code, "utf-8")
    ran = run(site, TRAINING)
    error = ran.stderr.strip().splitlines()[-1]
    assert "AttachError" in error
    assert "'mylib' (mylib_spikewatch:LIBRARY)" in error
    assert told in error


FAULTY = """
from dataclasses import replace

from spikewatch.collectors.library import Dynamics

LIBRARY = replace(
    LIBRARY,
    dynamics=lambda module: Dynamics(threshold=0.5),
    membrane=lambda module, output: output.voltage,  # it was called so in an older version
)
"""

ASKED = """
with spikewatch.open_store("spikewatch-runs") as store:
    print([store.sql(f"FROM {t}").height for t in ("spikes", "timing", "dynamics", "membrane")])
    print(store.sql("SELECT message FROM events WHERE kind = 'fault'")["message"].to_list())
"""


def test_a_library_that_is_wrong_of_one_thing_loses_that_table_alone(site):
    (site / "mylib_spikewatch.py").write_text(MODULE + FAULTY, "utf-8")
    ran = run(site, TRAINING + ASKED)
    assert ran.returncode == 0, ran.stderr
    rows, faults = ran.stdout.splitlines()[-2:]
    assert rows == "[1, 1, 1, 0]"
    assert faults == """["AttributeError: 'Out' object has no attribute 'voltage'"]"""
