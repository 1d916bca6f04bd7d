"""The workflow in a copy of the project, so that the tests can edit its code and config and kill its runs."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from dag import started

ROOT = Path(__file__).parents[2]
COPIED = (
    "Snakefile",
    "workflow",
    "profiles",
    "config",
    "src",
    "notebooks",
    "environment.yml",
    "requirements.lock",
    "data/reference",
)
RESULTS = ("sources", "models", "safety4m", "mrm", "search", "judge", "analysis")


@dataclass(frozen=True)
class Project:
    """A copy of the project in its own folder."""

    root: Path

    def environment(self) -> dict[str, str]:
        """Environment in which the copy's own code is imported."""
        return {**os.environ, "PYTHONPATH": str(self.root / "src"), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

    def command(self, *arguments: str) -> list[str]:
        """The snakemake command with these arguments."""
        return [sys.executable, "-m", "snakemake", *arguments]

    def snakemake(self, *arguments: str, config: str = "smoke", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run snakemake to its end and return what it printed (stdout and stderr in stdout)."""
        command = ["--configfile", f"config/{config}.yaml", *arguments]
        with tempfile.TemporaryDirectory() as folder:
            printed = Path(folder) / "printed"
            status = started.run(command, self.root, self.environment(), printed)
            result = subprocess.CompletedProcess(command, status, printed.read_text())
        if check:
            assert result.returncode == 0, result.stdout[-6000:]
        return result

    def jobs(self, *arguments: str, config: str = "smoke") -> dict[str, int]:
        """Jobs a dry run lists, by rule."""
        output = self.snakemake("-n", *arguments, config=config).stdout
        table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", output, re.MULTILINE | re.DOTALL)
        return {row.split()[0]: int(row.split()[1]) for row in table[1].splitlines()} if table else {}

    def digests(self, name: str = "smoke") -> dict[str, str]:
        """sha256 of every file that a stage of a config made, by path."""
        folders = [self.root / "data" / name / stage for stage in RESULTS] + [self.root / "figures" / name]
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        shown = [path for path in files if not any(part.startswith(".") for part in path.relative_to(self.root).parts)]
        return {str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(shown)}

    def results(self, name: str = "smoke") -> dict[str, str]:
        """The same without the report, which shows how long the run took."""
        return {path: digest for path, digest in self.digests(name).items() if not path.endswith("/report.html")}

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text that stands once in a file."""
        text = (self.root / path).read_text()
        assert text.count(old) == 1, f"{path}: {old!r} stands {text.count(old)} times"
        (self.root / path).write_text(text.replace(old, new))


def copy(target: Path, *, of: Path = ROOT, extra: tuple[str, ...] = ()) -> Project:
    """A copy of a project's own files (and, of a finished copy, of what it made), times kept."""
    for name in (*COPIED, *extra):
        source = of / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(source, target / name)
    return Project(target)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh copy of the project."""
    return copy(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy in which the smoke workflow has run to its end with two jobs at a time; not to be edited.

    Made once, also when the tests run in several processes.
    """
    shared = tmp_path_factory.getbasetemp()
    root = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "finished"
    with FileLock(f"{root}.lock"):
        if not (root / "data/smoke/provenance.json").exists():
            copy(root).snakemake("--cores", "2")
    return Project(root)


@pytest.fixture
def rerun(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished run, to edit."""
    return copy(tmp_path, of=finished.root, extra=("data", "figures", ".snakemake"))
