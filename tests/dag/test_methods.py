"""A search method from outside the package: a distribution with an entry point, added to a finished run."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from .conftest import Project

pytestmark = pytest.mark.dag

DESCRIPTION = '''
from saffron.methods.base import Method, Rewarded
from saffron.methods.cost import grown


class Settings(Rewarded):
    """The first sample, whatever the budget."""


METHOD = Method(
    settings=Settings,
    search="first_sample.search:search",
    label="First sample",
    order=15,
    colour="#7F3C8D",
    marker="h",
    budget="samples",
    reads=lambda settings: frozenset({"policy", "guard"}),
    cost=lambda settings, size: (grown(size.policy, size.policy_prompt, size.new_tokens, size.new_tokens), 0.0),
)
'''
SEARCH = """
from dataclasses import replace

from saffron.methods.no_defense import Settings
from saffron.methods.no_defense.search import search as first_sample


def search(block, settings, budget):
    found = first_sample(block, Settings(), 0)
    return [replace(result, budget=budget, reward=1.0, reward_calls=budget) for result in found]
"""


@dataclass(frozen=True)
class Installed(Project):
    """A project beside which a distribution is installed."""

    def environment(self) -> dict[str, str]:
        """The copy's own code and the distribution's."""
        found = super().environment()
        return found | {"PYTHONPATH": f"{found['PYTHONPATH']}:{self.root / 'outside'}"}


def install(project: Project) -> Installed:
    """A distribution with one module and one entry point, as pip would leave it."""
    outside = project.root / "outside"
    files = {
        "first_sample/__init__.py": DESCRIPTION,
        "first_sample/search.py": SEARCH,
        "first_sample-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: first-sample\nVersion: 1.0\n",
        "first_sample-1.0.dist-info/entry_points.txt": "[saffron.methods]\nfirst_sample = first_sample:METHOD\n",
    }
    for name, text in files.items():
        (outside / name).parent.mkdir(parents=True, exist_ok=True)
        (outside / name).write_text(text)
    return Installed(project.root)


def blocks(project: Project) -> dict[Path, int]:
    """Finished search blocks and when they were written."""
    return {path: path.stat().st_mtime_ns for path in (project.root / "data/smoke/search").rglob(".blocks/**/*.parquet")}


def add_run(project: Project, after: str, run: str) -> None:
    """Put a run first in the experiment in which a line begins so."""
    path = project.root / "config/smoke.yaml"
    head, begins, rest = path.read_text().partition(f"\n{after}")
    assert begins and "      runs:\n" in rest
    path.write_text(head + begins + rest.replace("      runs:\n", f"      runs:\n{run}", 1))


def test_a_method_from_outside_is_searched_alone_and_shown_everywhere(rerun: Project) -> None:
    project = install(rerun)
    assert project.jobs() == {}, "installing a method runs nothing again"
    before = blocks(project)
    figure = project.root / "figures/smoke/figure2.pdf"
    drawn = figure.read_bytes()
    for line in ("    scaling:", "      match: {method: best_of_n"):
        add_run(project, line, "        - {method: first_sample, budgets: [1, 2]}\n")

    project.snakemake("--cores", "2")
    after = blocks(project)
    assert {path: after[path] for path in before} == before
    new = after.keys() - before.keys()
    assert new and all(path.parent.name.startswith("first_sample-default-") for path in new)

    cells = pd.read_parquet(project.root / "data/smoke/analysis/cells.parquet")
    own = cells[cells["method"] == "first_sample"].groupby("experiment")["budget"].agg(list).to_dict()
    assert own.keys() == {"scaling", "matched"}
    assert own["scaling"] == [1, 2]
    assert own["matched"] in ([1], [2])  # the one that its compute matches
    assert "First sample" in (project.root / "figures/smoke/table2.csv").read_text()
    assert figure.read_bytes() != drawn
    assert "First sample" in (project.root / "figures/smoke/report.html").read_text()
    command = [sys.executable, "-m", "saffron.cli", "plan", "--config", "config/smoke.yaml"]
    plan = subprocess.run(command, cwd=project.root, env=project.environment(), capture_output=True, text=True, check=True)
    assert "| search |" in plan.stdout
