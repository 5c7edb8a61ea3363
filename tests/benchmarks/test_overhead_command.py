"""`python -m benchmarks.overhead`, as it is run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.overhead.choice import choose
from benchmarks.overhead.command import main


ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_short_run_prints_a_table_writes_json_and_judges(tmp_path):
    only = ["--only", "mlp-small", "defaults", "every-step"]
    short = ["--quick", "--rounds", "2", "--round", "0.1", "--json", str(tmp_path / "o.json")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.overhead", *only, *short],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    found = json.loads((tmp_path / "o.json").read_text())
    rows = {r["watcher"]: r for r in found["rows"]}
    assert {r["status"] for r in rows.values()} == {"measured"}
    assert 0 <= rows["defaults"]["costs"]["observed_frac"] < 0.5
    assert rows["every-step"]["costs"]["observed_frac"] == 1
    # What two rounds of a tenth of a second say of time is noise, on a loaded
    # machine mostly: that it is printed as it was measured is the promise.
    assert f"{rows['every-step']['costs']['wall_ratio']:.3f}" in done.stdout
    assert rows["every-step"]["written_bytes_per_step"] > 10
    assert "spikewatch, every step" in done.stdout
    assert "goal: every step ≤ 1.5 on mlp-2ms: not measured" in done.stdout
    missed = sum(g["state"] == "MISSED" for g in found["goals"])
    assert done.returncode == int(missed > 0)
    assert (
        done.stdout.splitlines()[-1] == f"overhead: {missed} of {len(found['goals'])} goals missed"
    )
    assert "2/2" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "mlp-smal"], "did you mean 'mlp-small'?"),
        (["--only", "mlp-small", "sinabs-hooks"], "none of sinabs-hooks applies to mlp-small"),
        (["--rounds", "1"], "--rounds was 1; give 2 to"),
        (["--round", "0"], "--round was 0; give 0.1 to 60 seconds"),
        (["--round", "nan"], "--round was nan; give 0.1 to 60 seconds"),
        (["--device", "cuda"], "torch sees no CUDA device"),
        (["--json", "nowhere/at/all.json"], "there is no folder nowhere/at"),
        (["--slow"], "unrecognized arguments: --slow"),
    ],
)
def test_misuse_is_said_before_anything_is_measured(arguments, said, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_the_list_names_every_training_and_watcher(capsys):
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert {f"{t.name} {w.name}" for t, w in choose([])} >= {"mlp-2ms every-step", "conv sj-output"}
    assert all(f"  {t.name} " in listed and f"  {w.name} " in listed for t, w in choose([]))


def test_patterns_pick_trainings_and_watchers():
    picked = {(t.name, w.name) for t, w in choose(["conv*", "sj-output"])}
    assert picked == {("conv", "sj-output")}
    assert {t.name for t, _ in choose(["mlp-*"])} == {
        "mlp-small",
        "mlp-2ms",
        "mlp-large",
        "mlp-norse",
    }
    assert {w.name for _, w in choose(["wandb"])} == {"wandb"}
