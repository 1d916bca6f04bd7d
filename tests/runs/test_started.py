from __future__ import annotations

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
