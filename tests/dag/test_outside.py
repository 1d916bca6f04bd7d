"""All that one can bring, from outside the package: method, judge, reader, figure, prompts and a guard of another family.

The distributions are the examples of docs/bring-your-own.md and docs/judges.md, built and installed as they stand there.
"""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from replica import other_family
from transformers import LlamaConfig, LlamaForCausalLM

from .conftest import ROOT, Project

pytestmark = pytest.mark.dag

#: A file of a distribution as a page shows it: its name stands in the first line.
FILE = re.compile(r"```(?:python|toml)\n# ([\w/]+\.(?:py|toml))[^\n]*\n(.*?)```", re.S)

#: A method and a table that come later, in a distribution of their own.
LATER = {
    "first_sample/__init__.py": '''
from saffron.methods.base import Method
from saffron.methods.cost import grown
from saffron.section import Section


class Settings(Section):
    """The first sample, whatever the budget."""


METHOD = Method(
    settings=Settings,
    search="first_sample.search:search",
    label="First sample",
    order=15,
    colour="#7F3C8D",
    marker="p",
    budget="samples",
    reads=lambda settings: frozenset({"policy"}),
    cost=lambda settings, size: (grown(size.policy, size.policy_prompt, size.new_tokens, size.new_tokens), 0.0),
)
''',
    "first_sample/search.py": """
from dataclasses import replace

from saffron.methods.no_defense import Settings
from saffron.methods.no_defense.search import search as first_sample


def search(block, settings, budget):
    return [replace(result, budget=budget, reward=1.0) for result in first_sample(block, Settings(), 0)]
""",
    "first_sample/lengths.py": """
from saffron.figures.base import Exhibit


def table(view):
    from saffron.table import Table

    return Table.of(view.cells[["method", "n_new_tokens"]], "New tokens per output.")


EXHIBIT = Exhibit(title="Lengths", about="Of all outputs.", section="My own results", table=table)
""",
    "pyproject.toml": """
[project]
name = "first-sample"
version = "1.0"

[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[tool.setuptools]
packages = ["first_sample"]

[project.entry-points."saffron.methods"]
first_sample = "first_sample:METHOD"

[project.entry-points."saffron.figures"]
lengths = "first_sample.lengths:EXHIBIT"
""",
}


#: Figure 2 in words, and which runs the plan counts.
DESCRIBED = """
from saffron.analysis.view import View
from saffron.figures import discovery
view = View.open("config/mine.yaml")
print(discovery.exhibits(view.config)["figure2"].alt_text(view))
"""
PLANNED = """
from saffron import config
from saffron.runs import plan
from saffron.layout import Layout
costs = plan.search_costs(config.load("config/mine.yaml"), Layout("mine"))
print({key: cost > 0 for key, cost in costs.items()})
"""


@dataclass(frozen=True)
class Installed(Project):
    """A project beside which distributions are installed."""

    @property
    def outside(self) -> Path:
        """Where they lie."""
        return self.root / "outside"

    def environment(self) -> dict[str, str]:
        """The copy's own code and the distributions'."""
        found = super().environment()
        return found | {"PYTHONPATH": f"{found['PYTHONPATH']}:{self.outside}"}

    def install(self, *distributions: dict[str, str]) -> None:
        """Build and install distributions, given as texts by file, with pip and what this environment holds."""
        folders = []
        for number, files in enumerate(distributions):
            folders.append(self.root / f"distributions/{next(iter(files)).replace('/', '-')}-{number}")
            for name, text in files.items():
                path = folders[-1] / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
        pip += ["--disable-pip-version-check", "--target", str(self.outside), *map(str, folders)]
        done = subprocess.run(pip, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]

    def python(self, *arguments: str) -> str:
        """What a Python with these arguments prints in the project's folder."""
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=self.root, env=self.environment(), capture_output=True, text=True, check=True).stdout


def files_of(page: str) -> dict[str, str]:
    """The files that a page shows with their names."""
    return dict(FILE.findall((ROOT / page).read_text()))


def write_config(project: Project) -> dict[str, Any]:
    """A config with prompts in a form of one's own, and a Mistral guard beside a Llama policy, made on the spot."""
    folder = project.root / "mine"
    values = yaml.safe_load(other_family.write(folder).read_text())
    vocabulary = len(other_family.build_tokenizer())
    with torch.random.fork_rng():
        torch.manual_seed(1)
        LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **other_family.SIZES)).save_pretrained(folder / "policy")
    lines = [{"exchange": f"How do I bake {what} bread? => First, mix flour with {what}."} for what in ("rye", "oat", "nut")]
    (folder / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    values["sources"]["prompts"] = {"lines": {"from": "path", "path": "mine/lines.jsonl", "reader": "my_rows"}}
    values["mrm"]["evaluation_prefixes"] = 16
    values["search"] |= {"max_new_tokens": 4, "jobs": "runs"}
    runs = [{"method": name, "budgets": [1, 2]} for name in ("best_of_n", "saffron", "my_method")]
    values["search"]["experiments"] = {
        "growth": {"dataset": "lines", "role": "scaling", "runs": [{"method": "no_defense", "budgets": [0]}, *runs]},
        "equal": {
            "dataset": "lines",
            "role": "matched",
            "match": {"method": "best_of_n", "budget": 2},
            "runs": [{"method": "best_of_n", "budgets": [2]}, {"method": "my_method", "budgets": [1, 2]}],
        },
    }
    long = {"name": "long", "kind": "long_answers", "settings": {"words": 2}}
    values["judges"] = [{"name": "guard", "kind": "guard"}, long]
    values["analysis"] = {"bootstrap_samples": 100}
    write(project, values)
    return values


def write(project: Project, values: dict[str, Any]) -> None:
    (project.root / "config/mine.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def sources(root: Path) -> dict[str, bytes]:
    """Files of the package, by name."""
    return {str(path.relative_to(root)): path.read_bytes() for path in (root / "src").rglob("*.py")}


def test_all_that_one_brings_is_run_and_shown_and_one_more_method_is_searched_alone(project: Project) -> None:
    installed, shipped = Installed(project.root), sources(project.root)
    judge = {name: text for name, text in files_of("docs/judges.md").items() if name != "kitchen_judges.py"}
    installed.install(files_of("docs/bring-your-own.md"), judge)
    values = write_config(installed)
    installed.snakemake("--cores", "2", config="mine")
    data, figures = installed.root / "data/mine", installed.root / "figures/mine"

    made = [data / f"models/seed0/{which}/config.json" for which in ("policy", "guard")]
    families = [json.loads(path.read_text())["model_type"] for path in made]
    assert families == ["llama", "mistral"]
    cells = pd.read_parquet(data / "analysis/cells.parquet")
    own = cells[cells["method"] == "my_method"]
    assert set(own["experiment"]) == {"growth", "equal"} and set(own["dataset"]) == {"lines"}
    assert own["long_asr"].notna().all() and (own["flops_reward"] == 0).all()
    assert "Shortest of N" in (figures / "table2.csv").read_text() and "ASR by long" in (figures / "table2.md").read_text()
    assert (figures / "my_figure.pdf").read_bytes().startswith(b"%PDF")
    report = (figures / "report.html").read_text()
    assert "My own results" in report and "Attack success and length" in report
    described = installed.python("-c", DESCRIBED).strip()
    assert "Shortest of N" in described and described in html.unescape(report)
    planned = installed.python("-m", "saffron.cli", "plan", "--config", "config/mine.yaml")
    [searching] = [line for line in planned.splitlines() if line.startswith("| search |")]
    [judging] = [line for line in planned.splitlines() if line.startswith("| judge |")]
    assert re.search(r"Shortest of N [1-9]\d*%", searching) and re.search(r"outputs by .*\blong\b", judging)
    assert "Shortest of N" not in installed.python("-m", "saffron.cli", "plan", "--config", "config/smoke.yaml")
    assert "('growth', 'my_method-default', 2): True" in installed.python("-c", PLANNED)
    assert sources(installed.root) == shipped, "files touched inside the package: none"

    assert installed.jobs(config="mine") == {}
    installed.install(LATER)
    drawn = {"draw_lengths": 1, "report": 1, "provenance": 1, "all": 1}
    assert installed.jobs(config="mine") == drawn, "installing a method runs nothing again, a table is made alone"
    values["search"]["experiments"]["growth"]["runs"].insert(0, {"method": "first_sample", "budgets": [1, 2]})
    write(installed, values)
    listed = installed.snakemake("-n", config="mine").stdout
    assert re.findall(r"logs/search/(search_run\.\S+)\.log", listed) == ["search_run.seed0.growth.first_sample-default.shard0"]
    jobs = installed.jobs(config="mine")
    assert jobs["search_run"] == jobs["gather_search"] == 1 and jobs["judge_replicate"] == 2
    later = {"search_run", "gather_search", "judge_replicate", "analyse", "report", "provenance", "all"}
    assert {name for name in jobs if not name.startswith("draw_")} == later

    installed.snakemake("--cores", "2", "analysis", "draw_figure2", "draw_table2", config="mine")
    cells = pd.read_parquet(data / "analysis/cells.parquet")
    assert cells.loc[cells["method"] == "first_sample", "budget"].tolist() == [1, 2]
    assert "First sample" in (figures / "table2.csv").read_text()
