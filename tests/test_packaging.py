"""What a user gets: one package, all of it, and a light import."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
HOMES = {"spikewatch": "spikewatch", "collectors": "spikewatch/collectors", "app": "spikewatch/app"}
SHIPPED = {".py", ".toml", ".js", ".typed"}


def shipped_files():
    for folder, home in HOMES.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in SHIPPED or path.name == "py.typed":
                yield f"{home}/{path.relative_to(ROOT / folder).as_posix()}"


@pytest.fixture(scope="module", name="wheel")
def _wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    no_caches = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in HOMES:
        shutil.copytree(ROOT / folder, source / folder, ignore=no_caches)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    out = source / "wheels"
    done = subprocess.run([*build, "-w", str(out), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("spikewatch-*.whl")
    return wheel


def test_the_wheel_puts_nothing_but_spikewatch_into_site_packages(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"spikewatch"}


def test_every_file_of_the_tree_is_in_the_wheel(wheel):
    assert sorted(set(shipped_files()) - set(zipfile.ZipFile(wheel).namelist())) == []


def test_the_wheel_imports_without_the_tree(wheel, tmp_path):
    code = "import spikewatch; from spikewatch.metrics import TABLES; print(spikewatch.__file__)"
    ran = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(wheel)!r}); "
         f"sys.path.append({site_packages()!r}); {code}"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert str(wheel) in ran.stdout


def site_packages():
    import polars

    return str(Path(polars.__file__).parents[1])


def modules_after(code):
    """Top-level names in `sys.modules` after some code has run in a fresh interpreter."""
    names = "sorted({m.split('.')[0] for m in sys.modules})"
    script = f"{code}\nimport json, sys\nprint(json.dumps({names}))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(ran.stdout.splitlines()[-1]))


SCREEN = {"streamlit", "plotly", "watchdog"}
TRAINERS = {"lightning", "pytorch_lightning", "transformers", "ignite", "accelerate"}
LIBRARIES = {"snntorch", "spikingjelly", "norse", "sinabs", "brevitas"} | TRAINERS


def test_importing_spikewatch_brings_no_heavy_package():
    assert (
        modules_after("import spikewatch") & ({"torch", "polars", "duckdb"} | SCREEN | LIBRARIES)
        == set()
    )


def test_attaching_brings_no_screen_and_no_snn_library():
    loaded = modules_after("import spikewatch\nspikewatch.attach, spikewatch.Watch")
    assert "torch" in loaded
    assert loaded & (SCREEN | LIBRARIES) == set()


@pytest.mark.parametrize("name", ["open_store", "Rule"])
def test_reading_runs_needs_no_torch(name):
    loaded = modules_after(f"import spikewatch\nspikewatch.{name}")
    assert loaded & ({"torch"} | SCREEN | LIBRARIES) == set()


def test_every_public_name_can_be_loaded_and_is_listed():
    import spikewatch

    assert spikewatch.__version__ == "0.1.0"
    for name in spikewatch.__all__:
        assert getattr(spikewatch, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        spikewatch.no_such_name  # noqa: B018
