"""What is run again after an edit: the stage that reads it and what depends on that, nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest

from saffron import config as configs
from saffron.figures import discovery

from .conftest import ROOT, Project

pytestmark = pytest.mark.dag

DRAWN = {f"draw_{page}" for page in discovery.pages(configs.load(ROOT / "config/smoke.yaml"))}
FIGURES = DRAWN | {"report", "provenance", "all"}
ANALYSIS = {"analyse"} | FIGURES
JUDGE = {"judge_replicate"} | ANALYSIS
SEARCH = {"search_replicate"} | JUDGE
MRM = {"train_mrm", "evaluate_mrm"} | SEARCH
SAFETY4M = {"label", "gather_labels"} | MRM
MODELS = {"tokenizer", "policy", "guard", "deepalign"} | SAFETY4M
EVERYTHING = {"build_sources"} | MODELS


def test_a_second_run_runs_nothing(rerun: Project) -> None:
    before = rerun.digests()
    assert "Nothing to be done" in rerun.snakemake("--cores", "2").stdout
    assert rerun.digests() == before


def test_touching_sources_and_configs_runs_nothing(rerun: Project) -> None:
    later = time.time() + 10
    for folder in ("src", "config", "workflow", "notebooks", "profiles", "data/reference"):
        for path in (rerun.root / folder).rglob("*"):
            if path.is_file():
                os.utime(path, (later, later))
    assert rerun.jobs() == {}


def test_a_copy_with_new_times_runs_nothing(rerun: Project) -> None:
    """As `cp -r` makes one, results newer or older than what they were made from."""
    now = time.time()
    for place, path in enumerate(sorted(rerun.root.rglob("*"), reverse=True)):
        if path.is_file():
            os.utime(path, (now + place, now + place))
    assert rerun.jobs() == {}


def test_touching_a_result_runs_nothing(rerun: Project) -> None:
    later = time.time() + 10
    for name in (
        "sources/conversations.parquet",
        "safety4m/seed0/labels.parquet",
        "search/seed0/scaling.parquet",
        "analysis/analysis.json",
    ):
        os.utime(rerun.root / "data/smoke" / name, (later, later))
    assert rerun.jobs() == {}


@pytest.mark.parametrize(
    ("old", "new", "rules"),
    [
        ("benchmark_seed: 7", "benchmark_seed: 8", EVERYTHING),
        ("policy_safety: {steps: 6", "policy_safety: {steps: 7", {"policy", "deepalign"} | SEARCH),
        ("guard_outcome_share: 0.5", "guard_outcome_share: 0.6", {"guard"} | SAFETY4M),
        ("evaluation_prefixes: 200", "evaluation_prefixes: 150", {"evaluate_mrm"} | ANALYSIS),
        ("{name: oracle,", "{name: truth,", JUDGE),
        ("# The sandbox's whole workflow", "# A comment", set()),
    ],
)
def test_editing_one_config_key(rerun: Project, old: str, new: str, rules: set[str]) -> None:
    """What follows a changed job. Which key changes which job: tests/test_workflow.py."""
    rerun.edit("config/smoke.yaml", old, new)
    assert set(rerun.jobs()) == rules


@pytest.mark.parametrize(
    ("path", "rules"),
    [
        ("src/saffron/sources/sandbox/corpora.py", EVERYTHING),
        ("src/saffron/mrm/training.py", MRM),
        ("src/saffron/runs/provenance.py", {"report", "provenance", "all"}),
        ("src/saffron/cli.py", set()),
        ("workflow/rules/common.smk", set()),
    ],
)
def test_editing_the_code_of_one_stage(rerun: Project, path: str, rules: set[str]) -> None:
    """What follows a changed job. Which code changes which job: tests/test_jobs.py."""
    assert (rerun.root / path).exists()
    with (rerun.root / path).open("a") as stream:
        stream.write("\nEDITED = 1\n")
    assert set(rerun.jobs()) == rules


def test_comments_docstrings_and_layout_are_no_code(rerun: Project) -> None:
    for path in (rerun.root / "src/saffron").rglob("*.py"):
        with path.open("a") as stream:
            stream.write("\n\n\n# edited\n")
    rerun.edit("src/saffron/methods/deal/search.py", '"""DeAL; the budget is', '"""Edited. DeAL; the budget is')
    assert rerun.jobs() == {}


@pytest.mark.parametrize(
    ("path", "drawn"),
    [
        ("figures/style.py", DRAWN),
        ("figures/exhibits/scaleff.py", {"draw_table1"}),
        ("runs/report.py", set()),
    ],
)
def test_editing_how_figures_are_drawn_draws_those_again(rerun: Project, path: str, drawn: set[str]) -> None:
    assert (rerun.root / "src/saffron" / path).exists()
    with (rerun.root / "src/saffron" / path).open("a") as stream:
        stream.write("\nEDITED = 1\n")
    assert set(rerun.jobs()) == drawn | {"report", "provenance", "all"}


def test_editing_the_look_of_the_report_writes_it_again(rerun: Project) -> None:
    rerun.edit("src/saffron/runs/templates/report.html", "font: 15px/1.5", "font: 16px/1.5")
    assert set(rerun.jobs()) == {"report", "provenance", "all"}


def test_editing_the_notebook_executes_it_for_every_page(rerun: Project) -> None:
    rerun.edit("notebooks/figure.ipynb", '"nbformat_minor": 5', '"nbformat_minor": 5 ')
    assert set(rerun.jobs()) == FIGURES
    rerun.edit("notebooks/figure.ipynb", '"nbformat_minor": 5 ', '"nbformat_minor": 5')
    rerun.edit("notebooks/ablation.ipynb", '"nbformat_minor": 5', '"nbformat_minor": 5 ')
    assert rerun.jobs() == {}


def test_editing_a_published_number_of_the_paper_analyses_again(rerun: Project) -> None:
    with (rerun.root / "data/reference/paper/claims.yaml").open("a") as stream:
        stream.write("\n# edited\n")
    assert set(rerun.jobs()) == ANALYSIS


@pytest.mark.parametrize(
    ("stage", "rules"),
    [("models", MODELS), ("mrm", MRM), ("judge", JUDGE)],
)
def test_a_deleted_stage_is_made_again_with_what_depends_on_it(rerun: Project, stage: str, rules: set[str]) -> None:
    shutil.rmtree(rerun.root / "data/smoke" / stage)
    assert set(rerun.jobs()) == rules


@pytest.mark.parametrize(
    "deleted",
    [
        "search/seed0/trees.json",
        "mrm/seed0/default/evaluation.parquet",
    ],
)
def test_what_the_analysis_was_made_from_is_made_again_for_the_figures(rerun: Project, deleted: str) -> None:
    (rerun.root / "data/smoke" / deleted).unlink()
    assert {"analyse", "report", "figures"} | DRAWN < set(rerun.jobs("figures"))
    assert {"analyse", "analysis"} < set(rerun.jobs("analysis"))
    # One figure's own inputs are all there, which is all that Snakemake looks at; the check that follows it names the file.
    assert rerun.jobs("figures/smoke/figure2.pdf") == {}
    command = [sys.executable, "-m", "saffron.cli", "figures", "check", "--config", "config/smoke.yaml"]
    check = subprocess.run(command, cwd=rerun.root, env=rerun.environment(), capture_output=True, text=True)
    assert check.returncode == 2
    assert f"data/smoke/{deleted}: missing, but data/smoke/analysis/analysis.json was made from it" in check.stderr


def test_a_deleted_figure_is_made_again_alone(rerun: Project) -> None:
    (rerun.root / "figures/smoke/figure2.pdf").unlink()
    assert set(rerun.jobs()) == {"draw_figure2", "report", "provenance", "all"}
