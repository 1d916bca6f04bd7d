"""The smoke workflow to its end: with one and two jobs at a time, and killed in the middle of the searches."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from saffron import config as configs
from saffron import records
from saffron.figures import discovery
from saffron.layout import Layout

from .conftest import ROOT, Project

pytestmark = pytest.mark.dag

CONFIG = configs.load(ROOT / "config/smoke.yaml")


def test_everything_is_there(finished: Project) -> None:
    figures = finished.root / "figures/smoke"
    begins = {".pdf": b"%PDF", ".png": b"\x89PNG"}
    made = [finished.root / path for exhibit in discovery.exhibits(CONFIG).values() for path in exhibit.files(Layout("smoke"))]
    assert {"figure1.pdf", "figure2.png", "table3.csv", "experiment_development.pdf"} <= {path.name for path in made}
    for path in made:
        content = path.read_bytes()
        assert content and content.startswith(begins.get(path.suffix, b"")), path
    assert {path.name for path in figures.iterdir()} == {path.name for path in made} | {"report.html"}
    assert "<html" in (figures / "report.html").read_text()


def test_every_search_is_complete_and_keeps_no_times(finished: Project) -> None:
    for name, experiment in CONFIG.search.experiments.items():
        table = records.read_table(finished.root / f"data/smoke/search/seed0/{name}.parquet", records.SEARCH)
        assert set(zip(table["method"], table["settings_id"], strict=True)) == {
            (run.method, run.settings_id) for run in experiment.runs
        }
        assert table["output_ids"].map(len).max() <= CONFIG.search.max_new_tokens


def test_provenance_holds_the_digest_of_every_output(finished: Project) -> None:
    record = records.read_json(finished.root / "data/smoke/provenance.json")
    assert {path: item["sha256"] for path, item in record["outputs"].items()} == finished.digests()
    assert record["config"] == "smoke"


def test_the_resolved_config_lies_beside_the_results(finished: Project) -> None:
    assert configs.load(finished.root / "data/smoke/config.yaml") == CONFIG


def test_times_and_log_of_every_job_are_kept(finished: Project) -> None:
    data = finished.root / "data/smoke"
    times = {path.relative_to(data / "benchmarks").with_suffix("") for path in (data / "benchmarks").rglob("*.tsv")}
    logs = {path.relative_to(data / "logs").with_suffix("") for path in (data / "logs").rglob("*.log")}
    assert times == logs
    cpu = {path.relative_to(data / "benchmarks") for path in (data / "benchmarks").rglob("*.cpu.json")}
    assert cpu == {path.with_name(f"{path.name}.cpu.json") for path in times}
    assert len(times) == sum(count for rule, count in finished.jobs("--forceall").items() if rule != "all")


def started(project: Project, *arguments: str) -> subprocess.Popen[bytes]:
    """A run of the smoke config on one core that goes on while the test does; to be killed with all its jobs."""
    return subprocess.Popen(
        project.command("--configfile", "config/smoke.yaml", "--cores", "1", *arguments),
        cwd=project.root,
        env=project.environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait(process: subprocess.Popen[bytes], until: Callable[[], bool]) -> None:
    """Until something is so, or the process has ended, or ten minutes are over."""
    deadline = time.monotonic() + 600
    while not until() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)


def test_two_runs_of_one_config_do_not_meet(project: Project) -> None:
    """The first holds its lock as long as it has jobs, and a killed one leaves none."""
    data = project.root / "data/smoke"
    first = started(project)
    try:
        wait(first, lambda: (data / "logs").is_dir())  # it is past its start and has a job
        refused = project.snakemake("--cores", "1", "mrm", check=False)
        assert first.poll() is None
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert refused.returncode != 0
    assert "data/smoke: another run is working here" in refused.stdout
    project.snakemake("--cores", "1", "sources")


def blocks(project: Project) -> dict[Path, int]:
    """Finished search blocks and when they were written."""
    return {path: path.stat().st_mtime_ns for path in (project.root / "data/smoke/search").rglob(".blocks/**/*.parquet")}


def test_one_job_at_a_time_and_a_kill_give_the_same_bytes(finished: Project, project: Project) -> None:
    """Killed in the middle of a search; continued with one job per run and per models, where it had one for all."""
    process = started(project)
    wait(process, lambda: len(blocks(project)) >= 5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished_blocks = blocks(project)
    assert len(finished_blocks) >= 5
    experiments = list((project.root / "data/smoke/search/seed0").glob("*.parquet"))
    assert len(experiments) < len(CONFIG.search.experiments)

    runs, models = ("--config", "search={jobs: runs}"), ("--config", "search={jobs: models}")
    matched = "data/smoke/search/seed0/matched.parquet"
    project.snakemake("--cores", "2", matched, *runs)
    assert project.digests()[matched] == finished.digests()[matched]
    assert project.jobs(matched, *runs) == {}
    pages = ("analysis", "draw_figure2", "draw_table2")  # a page is a function of the analysis: two for all
    project.snakemake("--cores", "2", *pages, *models)
    after = blocks(project)
    assert {path: after.get(path) for path in finished_blocks} == finished_blocks
    ours, theirs = project.results(), finished.results()
    # where one job searches everything, no rule has the tables of single runs as its outputs, and none is kept
    by_run = {path for path in ours if re.search(r"/search/seed\d+/\w+/[^/]+\.shard\d+\.(parquet|job\.json)$", path)}
    assert by_run and not by_run & theirs.keys()
    assert {path: of for path, of in ours.items() if path not in by_run} == {path: theirs[path] for path in ours.keys() - by_run}
    assert {path for path in theirs.keys() - ours.keys() if not path.startswith("figures/")} == set()

    assert project.jobs(*pages, *models) == {}
    project.edit("config/smoke.yaml", "tolerance: 1.05", "tolerance: 1.06")
    assert project.jobs(*pages, *models).keys() & {"search_replicate_policy", "search_replicate_matched", "record_trees"} == {
        "search_replicate_matched"
    }
    project.edit("config/smoke.yaml", "tolerance: 1.06", "tolerance: 1.05")
    project.edit("config/smoke.yaml", "budgets: [2], settings: {lookahead: 2}", "budgets: [1], settings: {lookahead: 2}")
    exploration = "data/smoke/search/seed0/exploration.parquet"
    assert project.jobs(exploration, *models) == {"search_replicate_policy": 1, "gather_search": 1}
