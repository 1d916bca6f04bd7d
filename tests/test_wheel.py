"""What `pip install` gives: a wheel with everything that the package reads, which works outside a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: What a build reads.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "src", "data/reference", "notebooks")
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the project, as it is and without network: a build leaves files behind."""
    copy, built = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("built")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:
        source, target = ROOT / name, copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=ignored)
        else:
            shutil.copyfile(source, target)
    (copy / "data/sandbox").mkdir(parents=True)
    (copy / "data/sandbox/result.json").write_text("{}")
    result = subprocess.run([sys.executable, "-c", BUILD, str(built)], cwd=copy, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    [path] = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel's content, as site-packages would."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A Python command outside the checkout, with the wheel's package before any other."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_holds_every_module_and_what_they_read_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    templates = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/saffron/runs/templates").iterdir()}
    data = {f"saffron/data/paper/{path.name}" for path in (ROOT / "data/reference/paper").iterdir()}
    data |= {f"saffron/data/notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert names == modules | templates | data | {"saffron/data/sandbox/criteria.yaml"}


def test_its_metadata_name_the_command_and_the_requirements(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [entry] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        [metadata] = [name for name in archive.namelist() if name.endswith("METADATA")]
        assert archive.read(entry).decode().split() == ["[console_scripts]", "saffron", "=", "saffron.__main__:main"]
        read = Parser().parsestr(archive.read(metadata).decode())
    assert read["Name"] == "saffron-replication" and read["License-Expression"] == "MIT"
    assert any(line.startswith("transformers") for line in read.get_all("Requires-Dist") or [])


def test_the_package_finds_its_data_outside_a_checkout(installed: Path, tmp_path: Path) -> None:
    code = """
import saffron
from saffron.analysis import criteria, paper
from saffron.chat import ChatFormats
from saffron.figures import notebooks
from saffron.layout import shipped
from saffron.models.hub import CHAT_FORMATS
print(saffron.__file__)
formats = ChatFormats.load(CHAT_FORMATS, policy="llama3_policy")
print(len(paper.claims()), len(paper.table("table1")), len(criteria.read()), formats.eos_id)
print(sorted(path.name for path in shipped("notebooks").iterdir()))
"""
    result = run(installed, tmp_path, "-c", code)
    assert result.returncode == 0, result.stderr
    where, counts, notebooks = result.stdout.splitlines()
    assert Path(where).is_relative_to(installed)
    assert all(int(number) > 0 for number in counts.split())
    assert notebooks == str(sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb")))


@pytest.mark.parametrize("command", [["--help"], ["figures", "list"], ["plan"], ["validate"]])
def test_the_command_works_on_a_config_of_ones_own(installed: Path, tmp_path: Path, command: list[str]) -> None:
    config = [] if command == ["--help"] else ["--config", str(ROOT / "config/smoke.yaml")]
    result = run(installed, tmp_path, "-m", "saffron.cli", *command, *config)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["docs"], "saffron: this writes the project's own pages: run it in a checkout of the project"),
        (["validate"], "saffron: config/sandbox.yaml: no such config; the shipped ones are in config/"),
    ],
)
def test_what_needs_a_checkout_says_so_in_one_message(installed: Path, tmp_path: Path, command: list[str], message: str) -> None:
    result = run(installed, tmp_path, "-m", "saffron.cli", *command)
    assert result.returncode == 2 and result.stderr.strip().startswith(message) and "\n" not in result.stderr.strip()
    assert list(tmp_path.iterdir()) == []


def test_importing_the_package_loads_nothing_heavy(installed: Path, tmp_path: Path) -> None:
    code = """
import sys
import saffron
assert sorted(set(dir(saffron)) & set(saffron.__all__)) == sorted(saffron.__all__)
print([name for name in ("numpy", "torch", "transformers", "pandas", "pydantic", "saffron.methods") if name in sys.modules])
try:
    saffron.absent
except AttributeError as error:
    print(error)
"""
    result = run(installed, tmp_path, "-c", code)
    assert result.stdout.splitlines() == ["[]", "module 'saffron' has no attribute 'absent'"], result.stderr
