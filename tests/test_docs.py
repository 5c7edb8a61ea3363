"""The README tells what the code does."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from spikewatch.alerts.loading import load_rules
from spikewatch.metrics import METRICS


ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_what_is_generated_is_that_of_the_catalogue_and_the_shipped_rules():
    generated = runpy.run_path(str(ROOT / "docs" / "tables.py"))["generated"]()
    old = [f.name for f, text in generated.items() if f.read_text("utf-8") != text]
    assert old == [], "python3 dev.py docs writes them anew"
    names = [*METRICS, *(rule.name for rule in load_rules())]
    assert [name for name in names if f"`{name}`" not in README] == []


def test_every_command_and_variable_is_named():
    told = subprocess.run(
        [sys.executable, "-m", "spikewatch", "--help"], capture_output=True, text=True, check=True
    ).stdout
    commands = re.findall(r"^    ([a-z]+) ", told, re.MULTILINE)
    assert len(commands) >= 6
    assert [name for name in commands if f"`spikewatch {name}" not in README] == []
    code = "".join(p.read_text("utf-8") for p in (ROOT / "spikewatch").rglob("*.py"))
    variables = set(re.findall(r"[\"$](SPIKEWATCH_[A-Z_]+)", code))
    assert variables
    assert [name for name in variables if name not in README] == []


def test_the_training_it_shows_can_be_run_and_prints_what_it_shows(tmp_path):
    script = next(b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "first" in b)
    (tmp_path / "train.py").write_text(script.replace("range(300)", "range(20)"), "utf-8")

    def run(*command):
        return subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    trained = run("train.py")
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout in README
    assert run("-m", "spikewatch", "check", "first").returncode in (0, 1)
    query = re.search(r'query "(SELECT layer.*?)"', README)[1]
    assert "2 rows" in run("-m", "spikewatch", "query", query).stdout


def test_the_rules_file_it_shows_is_read(tmp_path):
    text = re.search(r"```toml\n(mute.*?)```", README, re.DOTALL)[1]
    file = tmp_path / "rules.toml"
    file.write_text(text, "utf-8")
    names = [rule.name for rule in load_rules(file)]
    assert re.search(r'^name = "(.*?)"', text, re.MULTILINE)[1] in names
    assert "nearly-binary" not in names


@pytest.mark.parametrize("file", re.findall(r"(?:src|srcset)=\"(.*?)\"|\]\((\w[\w./]*)\)", README))
def test_what_it_points_to_is_there(file):
    assert (ROOT / "".join(file)).exists()
