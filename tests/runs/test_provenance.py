from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from saffron import config as configs
from saffron import records
from saffron.layout import Layout
from saffron.runs import provenance

ROOT = Path(__file__).parents[2]
CONFIG = configs.load(ROOT / "config/smoke.yaml")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout("smoke", tmp_path)
    for name in (
        "search/seed0/scaling.parquet",
        "search/seed0/scaling/.blocks/x.parquet",
        "models/seed0/policy/.snakemake_timestamp",
    ):
        (layout.data / name).parent.mkdir(parents=True, exist_ok=True)
        (layout.data / name).write_text(name)
    for path in (layout.figures / "figure2.pdf", layout.data / "logs/search/run.log", layout.data / "config.yaml"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return layout


def test_provenance_lists_every_output_with_its_digest(layout: Layout) -> None:
    provenance.write(CONFIG, layout)
    record = records.read_json(layout.provenance)
    assert set(record["outputs"]) == {"data/smoke/search/seed0/scaling.parquet", "figures/smoke/figure2.pdf"}
    output = record["outputs"]["figures/smoke/figure2.pdf"]
    assert output == {"sha256": records.sha256(layout.figures / "figure2.pdf"), "bytes": 1}


def test_every_file_that_a_run_leaves_is_recorded_or_is_no_output(layout: Layout) -> None:
    """Against a listing of the folders, not of the stages."""
    made = ["judge/seed0/guard/scaling.parquet", "judge/seed0/guard/scaling.job.json", "search/seed0/scaling/x.match.json"]
    made += ["mrm/seed0/default/merged/config.json", "a_stage_of_tomorrow/table.parquet", "models/tokenizer.job.json"]
    others = ["logs/judge/x.log", "benchmarks/judge/x.tsv", "config.yaml", "provenance.json", "runtimes.json", ".running"]
    for name in made + others:
        records.write_json(layout.data / name, 1)
    others += ["search/seed0/scaling/.blocks/x.parquet", "models/seed0/policy/.snakemake_timestamp", "logs/search/run.log"]
    listed = {path.relative_to(layout.data).as_posix() for path in layout.data.rglob("*") if path.is_file()}
    recorded = {path.relative_to(layout.data).as_posix() for path in provenance.outputs(layout) if layout.data in path.parents}
    assert set(made) <= recorded
    assert listed - recorded == set(others)


def test_provenance_says_what_ran_where_and_from_which_seeds(layout: Layout) -> None:
    record = provenance.collect(CONFIG, layout)
    assert record["seeds"] == {"train": [0], "search": [0], "analysis": 0, "world": 7, "benchmark": 7}
    assert record["config_sha256"] == provenance.config_sha256(CONFIG)
    assert {"torch", "snakemake", "transformers", "python"} <= set(record["versions"])
    assert record["hardware"]["cores"] >= 1
    json.dumps(record, allow_nan=False)


def repository(folder: Path) -> Path:
    """A repository with one commit."""
    (folder / "src").mkdir(parents=True)
    (folder / "src/code.py").write_text("x = 1\n")
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "--quiet"], ["add", "."], [*name, "commit", "--quiet", "-m", "first"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def test_where_no_commit_is_known_the_record_says_why_and_what_the_code_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = repository(tmp_path / "clone")
    monkeypatch.chdir(clone)
    committed = provenance.git()
    assert len(committed["commit"]) == 40 and committed["modified"] is False and "why" not in committed
    (clone / "src/code.py").write_text("x = 2\n")
    changed = provenance.git()
    assert changed["modified"] is True and changed["code_sha256"] != committed["code_sha256"]

    unpacked = clone / "unpacked"  # in somebody's repository, whose commit is not the code's
    (unpacked / "src/__pycache__").mkdir(parents=True)
    (unpacked / "src/code.py").write_text("x = 1\n")
    (unpacked / "src/__pycache__/code.pyc").write_bytes(b"x")
    monkeypatch.chdir(unpacked)
    inside = provenance.git()
    assert inside["commit"] is None and inside["why"] == f"this folder is not a clone, but lies in the repository {clone}"
    assert inside["code_sha256"] == committed["code_sha256"]

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(clone))
    assert "not a git repository" in provenance.git()["why"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git()["why"] == "git is not installed"


def test_the_configs_digest_follows_its_values_alone() -> None:
    same = configs.parse(configs.as_dict(CONFIG), "again")
    other = configs.parse({**configs.as_dict(CONFIG), "train_seeds": [1]}, "other")
    assert provenance.config_sha256(same) == provenance.config_sha256(CONFIG)
    assert provenance.config_sha256(other) != provenance.config_sha256(CONFIG)


def benchmark(
    layout: Layout, stage: str, job: str, end: float, seconds: float, memory: str = "100.0", cpu: float | None = 1.5
) -> None:
    path = layout.benchmarks / stage / f"{job}.tsv"
    if cpu is not None:
        records.write_json(path.with_suffix(".cpu.json"), {"cpu_s": cpu})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:00\t{memory}\n")
    os.utime(path, (end, end))


def test_wall_time_counts_jobs_side_by_side_once(layout: Layout) -> None:
    benchmark(layout, "search", "a", end=1010, seconds=10)
    benchmark(layout, "search", "b", end=1012, seconds=8, memory="-")
    benchmark(layout, "search", "c", end=2003, seconds=3, memory="250.5")  # rerun much later: the gap is not counted
    benchmark(layout, "analysis", "analyse", end=2005, seconds=2)
    record = provenance.write_runtimes(CONFIG, layout)
    assert record["stages"]["search"] == {"jobs": 3, "wall_s": 15.0, "job_s": 21.0, "cpu_s": 4.5, "max_rss_mb": 250.5}
    assert record["total"]["wall_s"] == 17.0
    assert list(record["stages"]) == ["search", "analysis"]
    assert records.read_json(layout.runtimes) == record
    table = provenance.render_runtimes(record)
    assert [line.split()[0] for line in table.splitlines()] == ["stage", "search", "analysis", "total"]
    assert "0:00:15" in table


def test_a_job_without_its_cpu_time_leaves_a_dash(layout: Layout) -> None:
    benchmark(layout, "search", "a", end=1010, seconds=10)
    benchmark(layout, "search", "b", end=1020, seconds=10, cpu=None)
    benchmark(layout, "analysis", "analyse", end=1030, seconds=10)
    record = provenance.runtimes(CONFIG, layout)
    assert record["stages"]["search"]["cpu_s"] is None and record["total"]["cpu_s"] is None
    assert [line.split()[4] for line in provenance.render_runtimes(record).splitlines()[1:]] == ["–", "0:00:02", "–"]


def test_records_from_before_cpu_time_was_recorded_can_be_shown() -> None:
    row = {"jobs": 1, "wall_s": 1.0, "job_s": 2.0, "max_rss_mb": 3.0}
    old = {"stages": {"search": row}, "total": row | {"cpu_s": 1.6}}
    assert provenance.runtime_cells(old) == [
        ("search", "1", "1 s", "2 s", "–", "3 MB"),
        ("total", "1", "1 s", "2 s", "2 s", "3 MB"),
    ]


def test_cpu_time_and_memory_are_of_the_process_and_of_those_it_waited_for(tmp_path: Path) -> None:
    computes = "import time\nheld = b'1' * 300_000_000\nwhile time.process_time() < 0.3: pass\n"
    parent = "import subprocess, sys, time\nfrom pathlib import Path\nfrom saffron.runs import provenance\n"
    parent += "while time.process_time() < 0.3: pass\n"
    path = tmp_path / "job.cpu.json"
    parent += f"subprocess.run([sys.executable, '-c', {computes!r}])\nprovenance.write_usage(Path({str(path)!r}))\n"
    subprocess.run([sys.executable, "-c", parent], check=True)
    used = records.read_json(path)
    assert used["cpu_s"] >= 0.55 and 280 < used["max_rss_mb"] < 1000


def test_the_times_of_ablations_stand_apart(layout: Layout) -> None:
    sandbox = configs.load(ROOT / "config/sandbox.yaml")
    for stage, job in (("search", "search_run.seed0.scaling.saffron-default.shard0"), ("mrm", "train_mrm.seed0.default")):
        benchmark(layout, stage, job, end=1010, seconds=10)
    beyond = ("search_run.seed0.search_seeds.best_of_n-default.shard0", "gather_search.seed0.ablations")
    for job in beyond:
        benchmark(layout, "search", job, end=2000, seconds=100)
    for job in ("judge_apart.seed0.independent", "judge_ablations.seed0.guard"):
        benchmark(layout, "judge", job, end=2000, seconds=100)
    for job in ("judge_replicate.seed0.guard", "judge_early_replicate.seed0.guard"):
        benchmark(layout, "judge", job, end=1010, seconds=1)
    benchmark(layout, "mrm", "train_mrm.seed0.bias_absent", end=3000, seconds=50)
    benchmark(layout, "figures", "ablation_bias", end=3001, seconds=1)
    record = provenance.runtimes(sandbox, layout)
    assert record["total"]["jobs"] == 4 and record["total"]["wall_s"] == 10.0
    assert list(record["stages"]) == ["mrm", "search", "judge"]
    assert record["ablations"]["jobs"] == 6 and record["ablations"]["wall_s"] == 151.0
    assert provenance.render_runtimes(record).splitlines()[-1].startswith("ablations")


def test_no_benchmark_files_is_an_error(layout: Layout) -> None:
    with pytest.raises(records.RecordError, match="make replicate CONFIG=smoke"):
        provenance.runtimes(CONFIG, layout)
