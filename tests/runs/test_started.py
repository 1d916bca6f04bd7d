from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from saffron.runs import started
from saffron.runs.started import StartError


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with two profiles."""
    for name in ("default", "slurm"):
        (tmp_path / "project/profiles" / name).mkdir(parents=True)
        (tmp_path / "project/profiles" / name / "config.yaml").write_text("cores: 1\n")
    return tmp_path / "project"


@pytest.mark.parametrize(
    "given", [[], ["--workflow-profile", "slurm"], ["--workflow-profile=profiles/slurm"], ["--workflow-profile", "none"]]
)
def test_a_profile_that_is_there_is_taken_by_name_or_path(project: Path, given: list[str]) -> None:
    started.check(project, ["snakemake", "-n", *given], project)


@pytest.mark.parametrize("given", [["--workflow-profile", "profiles/slrum"], ["--workflow-profile=slrum"]])
def test_a_mistyped_profile_is_refused_as_snakemake_would_run_without_one(project: Path, given: list[str]) -> None:
    with pytest.raises(StartError, match=r"slrum: no such profile \(did you mean slurm\?\); profiles/ holds default, slurm$"):
        started.check(project, ["snakemake", *given], project)


def test_a_run_from_another_folder_is_refused_with_the_remedy(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        started.require(project, ["snakemake"], project.parent)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"is not the project's folder: run the same command in {project}" in said


def test_braces_in_the_projects_path_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a {b}").mkdir()
    with pytest.raises(StartError, match="move or rename"):
        started.check(tmp_path / "a {b}", ["snakemake"], tmp_path / "a {b}")


def test_code_of_another_checkout_is_refused(project: Path) -> None:
    """As an environment that was copied or moved with its project runs it."""
    started.own_code(project)  # no checkout
    started.own_code(Path(__file__).parents[2])
    (project / "src/saffron").mkdir(parents=True)
    with pytest.raises(StartError, match=r"made elsewhere; run `make env` here"):
        started.own_code(project)
    with pytest.raises(StartError, match=r"made elsewhere"):
        started.check(project, ["snakemake"], project)


def test_the_command_refuses_it_too(project: Path) -> None:
    (project / "src/saffron").mkdir(parents=True)
    command = [sys.executable, "-m", "saffron.cli", "figures", "list"]
    done = subprocess.run(command, cwd=project, capture_output=True, encoding="utf-8")
    assert done.returncode == 2 and done.stderr.startswith("saffron: this command runs the code in ")


@pytest.mark.parametrize(
    ("group", "command"),
    [
        ("methods", ["-m", "saffron", "validate"]),
        ("methods", ["-m", "snakemake", "--dry-run", "--quiet", "all"]),
        ("judges", ["-m", "saffron", "validate"]),
        ("readers", ["-m", "saffron", "validate"]),
        ("figures", ["-m", "saffron", "figures", "list"]),
    ],
)
def test_an_installed_package_that_is_broken_is_named_in_one_line(tmp_path: Path, group: str, command: list[str]) -> None:
    brought = tmp_path / "broken_thing-1.0.dist-info"
    brought.mkdir()
    (brought / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-thing\nVersion: 1.0\n")
    (brought / "entry_points.txt").write_text(f"[saffron.{group}]\nmine = no_such_module:THING\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *command], cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("Using ")]
    assert re.search(r" mine: no_such_module:THING of the installed broken-thing cannot be loaded \(ModuleNotFoundError: ", line)
    assert line.endswith("mend it, or remove it: python -m pip uninstall broken-thing")
