"""SpikingJelly 0.0.0.0.14 and 0.0.0.0.12, which most public repositories use still.

They cannot be installed beside 2.0, so each has a folder of its own and is tried in a process.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


SCRIPT = Path(__file__).with_name("old_spikingjelly.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "package"), [("0.0.0.0.14", "activation_based"), ("0.0.0.0.12", "clock_driven")]
)
def test_a_training_of_single_steps_and_of_sequences_is_told_of(version, package):
    folder = Path(sys.prefix) / f"spikingjelly-{version}"
    assert folder.is_dir(), "python3 dev.py test installs it there"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", SCRIPT, package],
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    steps, whole = json.loads(ran.stdout.splitlines()[-1])
    assert (steps["axes"], whole["axes"]) == ("B*", "TB*")
    assert steps["starts"] == [True, False, False, False] * 3
    assert steps["resets"][0] == "subtract"
    assert steps["potentials"] == [True] * 12
    for found in (steps, whole):
        assert found["library"] == "spikingjelly"
        assert found["n_spikes"] > 0
        assert found["n_nodes"] == 12
        assert found["slopes"] == pytest.approx(found["expected_slopes"], rel=1e-5)
        assert found["decays"][0] == 0.5
        assert found["surrogate"] == "ATan(alpha=2)"
        assert found["learnable"] == [[], ["w"]]
