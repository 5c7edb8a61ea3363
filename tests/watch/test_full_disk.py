"""A disk that takes no more: training goes on, and what was written before stays readable."""

import subprocess
import sys

import spikewatch


SCRIPT = """
import resource, signal, sys, torch, snntorch as snn, spikewatch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(16, 12), snn.Leaky(beta=0.9, init_hidden=True))
watch = spikewatch.attach(net, every=1, run="full")
opt = torch.optim.SGD(net.parameters(), 0.1)

def steps(n):
    for _ in range(n):
        net[1].reset_mem()
        opt.zero_grad(); net(torch.rand(32, 16)).mean().backward(); opt.step()

steps(30)
while not watch._recorder._journal.path.stat().st_size:
    pass
for _ in range(200):  # until the first rows are on disk
    steps(5)
size = watch._recorder._journal.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
steps(300)
watch.close()
print("trained on", watch.step)
"""


def test_training_goes_on_and_is_told_once(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "trained on 1330" in done.stdout
    assert done.stderr.count("Training goes on") == 1
    assert "Traceback" not in done.stderr
    with spikewatch.open_store(tmp_path / "spikewatch-runs") as store:
        kept = store.sql("SELECT count(*) AS n, count(DISTINCT step) AS steps FROM spikes")
    assert kept["n"].item() == kept["steps"].item()
