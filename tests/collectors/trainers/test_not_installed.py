"""Who misses the library of an integration is told so; spikewatch itself never imports one."""

import subprocess
import sys


SCRIPT = """
import importlib, sys
import spikewatch
spikewatch.attach
libraries = ["lightning", "pytorch_lightning", "transformers", "ignite", "accelerate"]
assert not set(libraries) & set(sys.modules)
sys.modules.update(dict.fromkeys(libraries))  # as where they are not installed
for name in ("lightning", "transformers", "ignite", "accelerate"):
    try:
        importlib.import_module(f"spikewatch.collectors.trainers.{name}")
    except ModuleNotFoundError as error:
        print(error)
"""


def test_the_error_says_what_to_install():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = ("lightning", "'transformers[torch]'", "pytorch-ignite", "accelerate")
    lines = done.stdout.splitlines()
    for line, install in zip(lines, wanted, strict=True):
        assert line.endswith(f"which is not installed. Install it with: pip install {install}")
