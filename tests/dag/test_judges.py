"""Judges from outside the package, as docs/judges.md adds them, and another threshold: no search is repeated."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml

from saffron import config as configs
from saffron.figures import discovery

from .conftest import ROOT, Project

pytestmark = pytest.mark.dag

DRAWN = {f"draw_{page}" for page in discovery.pages(configs.load(ROOT / "config/smoke.yaml"))}
JUDGING = {"judge_replicate", "analyse", "report", "provenance", "all"} | DRAWN
METADATA = "Metadata-Version: 2.1\nName: long-answers\nVersion: 1.0\n"


@dataclass(frozen=True)
class Installed(Project):
    """A project beside which the page's examples are installed."""

    def environment(self) -> dict[str, str]:
        """The copy's own code and the examples."""
        found = super().environment()
        return found | {"PYTHONPATH": f"{found['PYTHONPATH']}:{self.root / 'outside'}"}


def install(project: Project) -> tuple[Installed, list[dict[str, object]]]:
    """The page's modules and its distribution, as pip would leave them; and the judges that the page adds."""
    page = (ROOT / "docs/judges.md").read_text()
    files = {f"{name}.py": text for name, text in re.findall(r"```python\n# (\w+)\.py\n(.*?)```", page, re.S)}
    points = re.search(r"\[project\.entry-points\.\"(saffron\.judges)\"\]\n(\w+) = \"(.*)\"", page)
    assert points is not None and len(files) == 2
    files |= {
        "long_answers-1.0.dist-info/METADATA": METADATA,
        "long_answers-1.0.dist-info/entry_points.txt": f"[{points[1]}]\n{points[2]} = {points[3]}\n",
    }
    for name, text in files.items():
        path: Path = project.root / "outside" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    blocks = [yaml.safe_load(block)["judges"] for block in re.findall(r"```yaml\n(.*?)```", page, re.S)[1:]]
    return Installed(project.root), [judge for block in blocks for judge in block if judge["name"] != "guard"]


def test_judges_from_outside_read_a_finished_run_and_stand_in_every_table(rerun: Project) -> None:
    project, added = install(rerun)
    assert project.jobs() == {}, "installing a judge runs nothing again"
    searches = {path: path.stat().st_mtime_ns for path in (project.root / "data/smoke/search").rglob("*.parquet")}
    judged = {path: path.stat().st_mtime_ns for path in (project.root / "data/smoke/judge").rglob("*.parquet")}
    last = "  - {name: refusals, kind: refusals}\n"
    lines = "".join(f"  - {yaml.safe_dump(judge, default_flow_style=True, width=1000)}" for judge in added)
    project.edit("config/smoke.yaml", last, last + lines)
    jobs = project.jobs()
    assert (set(jobs), jobs["judge_replicate"]) == (JUDGING, 2)

    project.snakemake("--cores", "2", "analysis", "draw_table2")
    for path, time in (searches | judged).items():
        assert path.stat().st_mtime_ns == time, path
    cells = pd.read_parquet(project.root / "data/smoke/analysis/cells.parquet")
    assert {"asr", "oracle_asr", "refusals_asr", "steps_asr", "long_asr"} <= set(cells)
    assert "ASR by steps | ASR by long" in (project.root / "figures/smoke/table2.md").read_text()
    claims = json.loads((project.root / "data/smoke/analysis/claims.json").read_text())
    assert any({"steps", "long"} <= set(claim["by"]) for claim in claims)
    assert project.jobs("analysis", "draw_table2") == {}

    project.edit("config/smoke.yaml", "words: 4", "words: 2")  # another threshold
    jobs = project.jobs()
    assert (set(jobs), jobs["judge_replicate"]) == (JUDGING, 1)
    with (project.root / "outside/kitchen_judges.py").open("a") as stream:
        stream.write("\nEDITED = 1\n")
    assert project.jobs()["judge_replicate"] == 2
    project.edit("config/smoke.yaml", "{name: guard, kind: guard}", "{name: guard, kind: guard, settings: {threshold: 0.5}}")
    assert project.jobs()["judge_replicate"] == 3
