"""What to do next, and a finished run in a few lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import synthetic_results
import yaml
from typer.testing import CliRunner

from saffron import cli, jobs, records
from saffron import config as configs
from saffron.analysis import paper
from saffron.analysis import stage as analysis
from saffron.config import Config
from saffron.layout import Layout
from saffron.runs import provenance, status
from saffron.runs.provenance import STAGES


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder, in which the commands run."""
    (tmp_path / "Snakefile").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begun(root: Path, name: str = "mine") -> tuple[Config, Layout]:
    """A run that has started."""
    config = synthetic_results.config(name)
    layout = Layout(name, root)
    layout.data.mkdir(parents=True)
    (layout.data / "config.yaml").write_text(yaml.safe_dump(configs.as_dict(config)))
    return config, layout


def finish(config: Config, layout: Layout, stage: str) -> None:
    """Leave what shows that a stage is finished."""
    for path in status.results(config, layout)[stage]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_without_a_run_it_says_how_to_begin(project: Path) -> None:
    result = CliRunner().invoke(cli.app, [])
    assert result.exit_code == 0 and "make smoke" in result.output and "make replicate" in result.output


def test_outside_a_project_it_says_so(tmp_path: Path) -> None:
    assert status.next_steps(tmp_path).startswith(f"No Snakefile in {tmp_path}")


def test_each_stage_is_next_until_it_is_finished(project: Path) -> None:
    config, layout = begun(project)
    assert tuple(status.results(config, layout)) == STAGES
    for done, stage in enumerate(STAGES):
        assert f"mine: {done} of 8 stages finished, next: {stage}\n" in status.next_steps(project)
        finish(config, layout, stage)
    assert "mine: finished" in status.next_steps(project) and "figures/mine/report.html" in status.next_steps(project)
    assert "saffron compare --config" in status.next_steps(project) and "saffron publish --config" in status.next_steps(project)


def test_a_stage_of_which_one_file_is_missing_is_next(project: Path) -> None:
    config, layout = begun(project)
    for stage in STAGES:
        finish(config, layout, stage)
    status.results(config, layout)["judge"][-1].unlink()
    assert "7 of 8 stages finished, next: judge" in status.next_steps(project)


def test_a_shipped_config_is_named_to_make_and_any_other_to_snakemake(project: Path) -> None:
    begun(project)
    assert "snakemake --configfile" in status.next_steps(project) and "data/mine/config.yaml" in status.next_steps(project)
    (project / "config").mkdir()
    (project / "config/mine.yaml").touch()
    assert "make replicate CONFIG=mine" in status.next_steps(project)


def test_a_config_of_another_version_is_named(project: Path) -> None:
    _, layout = begun(project)
    (layout.data / "config.yaml").write_text("name: mine\nunknown: 1\n")
    assert "is not valid with this version" in status.next_steps(project)


def test_what_to_do_next_is_said_without_a_heavy_library(project: Path) -> None:
    begun(project)
    heavy = ("torch", "transformers", "numpy", "pandas", "pyarrow", "matplotlib", "snakemake")
    code = f"import sys; from saffron.runs import status; status.next_steps(); print([x for x in {heavy} if x in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_finished_run_is_summed_up(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, layout = begun(project)
    synthetic_results.write(config, layout)
    analysis.run(jobs.analyse(config).config, layout)
    times = layout.benchmarks / "search/search_all.tsv"
    times.parent.mkdir(parents=True)
    times.write_text("s\tmax_rss\n75.0\t10\n")
    records.write_json(times.with_name("search_all.cpu.json"), {"cpu_s": 30.0})
    text = status.summary(config, layout)
    lines = text.splitlines()
    assert lines[0] == "Main claims:" and len(lines) <= 14 and max(map(len, lines)) <= 130
    verdicts = {record["id"]: record["verdict"] for record in records.read_json_list(layout.analysis / "claims.json")}
    assert [line.split("  ")[1].split(" (")[0] for line in lines[1:9]] == [verdicts[claim] for claim in paper.headlines()]
    assert "time (CPU time): 0:01:15 (0:00:30); search 0:01:15 (0:00:30)" in text
    assert lines[-1] == f"report: {(layout.figures / 'report.html').as_posix()}" and layout.runtimes.exists()
    assert provenance.render_total(records.read_json(layout.runtimes)) in text
