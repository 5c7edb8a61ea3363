"""The demo: each planted illness sets off the alert made for it, and health sets off none."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import spikewatch
from spikewatch.cli import main
from spikewatch.ills import ILLS
from spikewatch.stories import MODEL_STORIES


# The rule, and the layer that it has to name.
EXPECTED = {
    "dead-neurons": ("dead-layer", "hidden_lif"),
    "saturated": ("many-saturated-neurons", "encoder_lif"),
    "vanishing-gradient": ("vanished-surrogate-gradient", "hidden_lif"),
    "runaway-amplitude": ("amplitude-too-large", "ternary_spike"),
    "ternary-collapse": ("ternary-collapse", "ternary"),
    "nan": ("non-finite-value", "loss"),
}


def fired(folder):
    with spikewatch.open_store(folder) as store:
        rows = store.sql("SELECT DISTINCT rule, layer FROM alerts WHERE state = 'firing'")
    return set(rows.rows())


def test_every_illness_has_its_alert():
    assert EXPECTED.keys() == ILLS.keys()


@pytest.mark.parametrize("ill", ILLS)
def test_a_planted_illness_sets_off_its_alert_and_exits_with_1(ill, tmp_path, capsys):
    code = main(["demo", "--headless", "--ill", ill, "--steps", "40", "--dir", str(tmp_path)])
    out = capsys.readouterr().out
    assert code == 1
    assert EXPECTED[ill] in fired(tmp_path)
    assert ILLS[ill].story in out
    assert f"run 'demo-{ill}'" in out


# Of each model one illness, in a part of another kind than the default's.
ELSEWHERE = {
    ("spike-gpt", "dead-neurons"): ("dead-layer", "blocks.0.channel_lif"),
    ("spikformer", "saturated"): ("many-saturated-neurons", "embedding.lif"),
    ("equilibrium", "dead-neurons"): ("dead-layer", "neurons"),
    ("equilibrium", "nan"): ("non-finite-value", "loss"),
    ("goose", "runaway-amplitude"): ("amplitude-too-large", "layer.key_spike"),
    ("ttq", "ternary-collapse"): ("ternary-collapse", "3"),
    ("sttn", "nan"): ("non-finite-value", "loss"),
}


@pytest.mark.parametrize(("model", "ill"), ELSEWHERE)
def test_the_same_illness_shows_in_other_models(model, ill, tmp_path, capsys):
    code = main(
        [
            *("demo", "--headless", "--model", model, "--ill", ill),
            *("--steps", "30", "--every", "2", "--dir", str(tmp_path)),
        ]
    )
    assert code == 1
    assert ELSEWHERE[model, ill] in fired(tmp_path)
    assert f"run 'demo-{model}-{ill}'" in capsys.readouterr().out


def test_another_model_trains_under_its_own_name(tmp_path, capsys):
    command = ["demo", "--headless", "--model", "twn", "--epochs", "1", "--dir", str(tmp_path)]
    assert main(command) == 0
    assert "run 'demo-twn': healthy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--model", "spikeformer"], "no model 'spikeformer'. Did you mean 'spikformer'?"),
        (["--model", "xyz"], "There are: digits, spike-gpt"),
        (["--ill", "dead-neuron"], "Did you mean 'dead-neurons'?"),
        (["--model", "equilibrium", "--ill", "saturated"], "It can have: dead-neurons, nan."),
        (["--model", "twn", "--ill", "saturated"], "It can have: ternary-collapse, nan."),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(wrong, said, tmp_path, capsys):
    assert main(["demo", "--headless", "--dir", str(tmp_path), *wrong]) == 2
    assert said in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_help_lists_models_and_illnesses_without_torch():
    code = (
        "import contextlib, sys\n"
        "from spikewatch.cli import main\n"
        "with contextlib.suppress(SystemExit):\n    main(['demo', '--help'])\n"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    help_text = " ".join(ran.stdout.split())
    assert all(story in help_text for story in MODEL_STORIES.values())
    assert all(ill.story in help_text for ill in ILLS.values())
    assert ran.stdout.endswith("False\n")


def test_the_readme_tells_of_every_model():
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    assert [n for n, story in MODEL_STORIES.items() if f"| `{n}` | {story} |" not in readme] == []


@pytest.mark.parametrize("seed", [0, 1])
def test_a_healthy_training_sets_off_nothing_and_learns(seed, tmp_path, capsys):
    code = main(
        ["demo", "--headless", "--seed", str(seed), "--epochs", "6", "--dir", str(tmp_path)]
    )
    assert code == 0
    assert fired(tmp_path) == set()
    with spikewatch.open_store(tmp_path) as store:
        values = store.sql("SELECT value FROM scalars WHERE name = 'accuracy' ORDER BY step")
        layers = store.sql("SELECT DISTINCT layer FROM wide WHERE phase = 'train'")["layer"]
    assert values["value"].last() > 0.9
    assert {"encoder_lif", "hidden_lif", "ternary", "ternary_spike"} <= set(layers)
    assert "healthy" in capsys.readouterr().out


def test_check_says_what_the_headless_demo_said(tmp_path, capsys):
    demo = main(["demo", "--headless", "--ill", "nan", "--steps", "10", "--dir", str(tmp_path)])
    said = capsys.readouterr().out
    assert main(["check", "--dir", str(tmp_path)]) == demo == 1
    assert capsys.readouterr().out in said


def test_without_the_app_s_packages_it_goes_on_headless(tmp_path):
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules['streamlit'] = None\nfrom spikewatch.cli import main\n"
            f"sys.exit(main(['demo', '--steps', '8', '--dir', {str(tmp_path)!r}]))",
        ],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert "pip install 'spikewatch[app]'" in ran.stdout
    assert "healthy" in ran.stdout


def test_without_its_own_packages_it_says_what_to_install(tmp_path):
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules['sklearn'] = None\nfrom spikewatch.cli import main\n"
            "sys.exit(main(['demo', '--headless']))",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert ran.returncode == 2
    assert "pip install 'spikewatch[demo]'" in ran.stderr


def health(root):
    with urllib.request.urlopen(f"{root}/healthz", timeout=20) as answer:
        return json.load(answer)


def wait_until(condition, *, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_page_is_open_while_it_trains_and_until_ctrl_c(tmp_path):
    command = [sys.executable, "-m", "spikewatch", "demo", "--steps", "30", "--no-browser"]
    with subprocess.Popen(
        [*command, "--dir", str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        lines = iter(process.stdout.readline, "")
        url = next(line for line in lines if "Watch it live" in line).split()[-1]
        assert url.endswith("/run?run=demo-healthy")
        root = url.partition("/run?")[0]
        wait_until(lambda: health(root)["running"] == 1)
        assert next(line for line in lines if "Ctrl-C" in line)
        assert health(root) | {"runs": 1, "running": 0} == health(root)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(root, timeout=2)
