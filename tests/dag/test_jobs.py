"""What the workflow would run: jobs of every config and target, refused configs, lint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from saffron import config as configs
from saffron import workflow
from saffron.figures import discovery

from .conftest import ROOT, Project, copy

pytestmark = pytest.mark.dag

ONCE = ("build_sources", "tokenizer", "analyse", "report", "provenance", "all")


def expected(name: str) -> dict[str, int]:
    """Jobs of the default target, counted from the config."""
    config = configs.load(ROOT / f"config/{name}.yaml")
    seeds, shards = len(config.train_seeds), config.search.shards
    experiments = workflow.experiments(config)
    jobs = dict.fromkeys(ONCE, 1)
    jobs |= dict.fromkeys([*workflow.model_names(config), "gather_labels"], seeds)
    jobs |= {
        "label": seeds * config.safety4m.shards,
        **{f"draw_{page}": 1 for page in discovery.pages(config, "replicate")},
    }
    if workflow.own_prompts(config):
        jobs["build_prompts"] = len(workflow.own_prompts(config))
    jobs |= dict.fromkeys(["train_mrm", "evaluate_mrm"], seeds * len(workflow.variants(config)))
    if config.search.jobs == "seeds":
        jobs["search_replicate"] = seeds
    else:
        if config.search.jobs == "runs":
            jobs["search_run"] = seeds * shards * sum(len(item.runs) for item in experiments.values())
        else:
            parts = [f"search_replicate_{part}".replace("-", "_") for part in workflow.search_parts(config, "replicate")]
            jobs |= dict.fromkeys(parts, seeds)
        jobs["gather_search"] = seeds * len(experiments)
        jobs["record_trees"] = seeds
    judging = [part for part, names in workflow.judging_parts(config).items() if set(names) <= set(experiments)]
    jobs |= dict.fromkeys([f"judge_{part}" for part in judging], seeds * len(workflow.judges(config)))
    return jobs


@pytest.mark.parametrize("name", ["sandbox", "sandbox-seeds", "smoke", "paper", "paper-1b"])
def test_every_config_builds_the_jobs_it_describes(project: Project, name: str) -> None:
    assert project.jobs(config=name) == expected(name)
    assert not (project.root / "data" / name).exists()  # a dry run writes nothing


def test_the_sandbox_is_these_jobs(project: Project) -> None:
    """The counts themselves, so that the test above cannot err together with the workflow."""
    jobs = project.jobs(config="sandbox")
    searches = {"early_policy", "early_policy_default", "policy", "policy_default", "deepalign", "matched"}
    expected_searches = {f"search_replicate_{name}": 1 for name in searches}
    assert {name: count for name, count in jobs.items() if name.startswith("search_")} == expected_searches
    by_run = project.jobs("--config", "search={jobs: runs}", config="sandbox")
    experiments = [item for item in _yaml("sandbox")["search"]["experiments"].values() if "group" not in item]
    assert by_run["search_run"] == sum(len(item["runs"]) for item in experiments)
    pages = {f"figure{name}" for name in ("1", "2", "3", "4a", "4b")} | {f"table{name}" for name in ("1", "2", "3")}
    pages |= {"section56", "mrm_in_search", "claims", "experiments", "overoptimisation"}
    assert {name.removeprefix("draw_") for name in jobs if name.startswith("draw_")} == pages
    assert (jobs["train_mrm"], jobs["label"]) == (1, 2)
    assert {name: count for name, count in jobs.items() if name.startswith("judge_")} == {
        "judge_early_replicate": 3,
        "judge_replicate": 3,
    }
    ablated = project.jobs("ablations", config="sandbox")
    judging = {"judge_ablations": 3, "judge_apart_independent": 1, "judge_apart_likelihood": 1}
    judging |= {"judge_early_replicate": 3, "judge_replicate": 3}  # which the analysis reads
    assert {name: count for name, count in ablated.items() if name.startswith("judge_")} == judging
    assert ablated["other_guard"] == 1
    criteria = project.jobs("criteria", config="sandbox")
    assert not criteria.keys() & {"judge_replicate", "search_replicate_policy"}, "no benchmark is read before the criteria"
    assert (criteria["judge_early_replicate"], criteria["judge_early_development"]) == (3, 3)


def _yaml(name: str) -> dict:
    return yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())


def test_the_default_config_is_the_sandbox(project: Project) -> None:
    bare = subprocess.run(project.command("-n"), cwd=project.root, env=project.environment(), capture_output=True, text=True)
    assert bare.returncode == 0
    assert "data/sandbox/provenance.json" in bare.stdout + bare.stderr


SHOW_CONFIG = """
import json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, Quietness, ResourceSettings
with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
    settings = ConfigSettings(configfiles=[Path(sys.argv[1])])
    workflow = api.workflow(resource_settings=ResourceSettings(), config_settings=settings, snakefile=Path("Snakefile"))._workflow
    workflow.include(workflow.main_snakefile, overwrite_default_target=True) if not workflow.globals.get("CONFIG") else None
    print(json.dumps({"raw": workflow.config, "files": [Path(f).name for f in workflow.configfiles]}))
"""


def test_no_key_of_the_sandbox_reaches_the_papers_config(project: Project) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", SHOW_CONFIG, "config/paper.yaml"],
        cwd=project.root,
        env=project.environment(),
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr[-3000:]
    resolved = json.loads(shown.stdout.splitlines()[-1])
    assert resolved["files"] == ["paper.yaml"]
    assert resolved["raw"] == _yaml("paper")
    assert "sandbox" not in resolved["raw"]["sources"]


# ------------------------------------------------------------------------------------------------------------ targets
UPSTREAM = {
    "sources": {"build_sources"},
    "models": {"build_sources", "tokenizer", "policy", "guard", "deepalign"},
    "safety4m": {"build_sources", "tokenizer", "guard", "label", "gather_labels"},
    "mrm": {"build_sources", "tokenizer", "guard", "label", "gather_labels", "train_mrm", "evaluate_mrm"},
}


@pytest.mark.parametrize("target", UPSTREAM)
def test_a_stage_target_runs_that_stage_and_what_it_needs(project: Project, target: str) -> None:
    assert set(project.jobs(target)) == UPSTREAM[target] | {target}


def test_later_targets_contain_the_earlier_ones(project: Project) -> None:
    search, analysis, figures = (set(project.jobs(target)) for target in ("search", "analysis", "figures"))
    assert search - {"search"} == UPSTREAM["models"] | (UPSTREAM["mrm"] - {"evaluate_mrm"}) | {
        "search_replicate",
    }
    assert set(project.jobs("judge")) - {"judge"} == search - {"search"} | {"judge_replicate"}
    assert analysis - {"analysis"} == search - {"search"} | {"evaluate_mrm", "judge_replicate", "analyse"}
    drawn = {f"draw_{page}" for page in discovery.pages(configs.load(ROOT / "config/smoke.yaml"))}
    assert figures - {"figures"} == analysis - {"analysis"} | drawn | {"report"}


def test_one_figure_can_be_asked_for(project: Project) -> None:
    jobs = project.jobs("figures/smoke/scaleff.pdf")  # drawn with Table 1
    assert project.jobs("draw_table1") == jobs
    assert [name for name in jobs if name.startswith("draw_")] == ["draw_table1"]
    assert not jobs.keys() & {"report", "provenance"}


def test_ablations_are_searched_and_shown_apart_from_the_replication(project: Project) -> None:
    values = _yaml("smoke")
    values["mrm"]["variants"] = {"default": {}, "other": {"bias": "absent"}}
    run = {"method": "saffron", "budgets": [2], "settings": {"mrm": "other"}}
    values["search"]["experiments"]["extra"] = {"dataset": "guild_a", "group": "ablations", "runs": [run]}
    (project.root / "config/smoke.yaml").write_text(yaml.safe_dump(values))
    jobs = project.jobs("ablations")
    assert (jobs["search_ablations"], jobs["train_mrm"]) == (1, 2)
    assert [name for name in jobs if name.startswith("draw_")] == ["draw_experiments_of_ablations"]
    everything = project.jobs()
    assert (everything["search_replicate"], everything["train_mrm"]) == (1, 1)
    assert not {"search_ablations", "draw_experiments_of_ablations"} & everything.keys()
    table = "data/smoke/search/seed0/extra.parquet"
    each = project.jobs(table, "--config", "search={jobs: runs}")
    assert (each["search_run"], each["gather_search"], each["train_mrm"]) == (1, 1, 1)


def test_a_matched_run_waits_for_its_reference(project: Project) -> None:
    target = "data/sandbox/search/seed0/matched/saffron-default.shard0.parquet"
    runs = ("--config", "search={jobs: runs}")
    alone = project.jobs(target, *runs, config="sandbox")
    assert alone["search_run"] == 2  # itself and best_of_n
    assert project.jobs(target.replace("saffron", "best_of_n"), *runs, config="sandbox")["search_run"] == 1
    together = project.jobs(target, config="sandbox")
    assert {name for name in together if name.startswith("search_")} == {"search_replicate_matched", "search_replicate_policy"}


# ------------------------------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  block_size: 4\n", "  blocksize: 4\n", "search.blocksize: unknown key"),
        (
            "  max_new_tokens: 6\n",
            "  max_new_tokens: twelve\n",
            "search.max_new_tokens: Input should be a valid integer, got 'twelve'",
        ),
        ("train_seeds: [0]\n", "train_seeds: []\n", "train_seeds: List should have at least 1 item"),
    ],
)
def test_a_wrong_config_is_one_message_before_anything_runs(project: Project, old: str, new: str, message: str) -> None:
    project.edit("config/smoke.yaml", old, new)
    result = project.snakemake("--cores", "1", check=False)
    assert result.returncode != 0
    assert message in result.stdout
    assert "smoke.yaml: 1 problem(s) in the config" in result.stdout
    assert "Traceback" not in result.stdout
    assert ".venv" not in result.stdout and 'File "' not in result.stdout
    assert not (project.root / "data/smoke").exists()


def test_a_hub_id_without_a_commit_ends_the_run_before_its_first_job(project: Project) -> None:
    project.edit("config/paper.yaml", "revision: 09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa", "revision: null")
    result = project.snakemake("--cores", "1", config="paper", check=False)
    assert result.returncode != 0
    assert "config/paper.yaml: 1 hub id(s) without a commit:" in result.stdout
    assert "sources.conversations.revision: " in result.stdout
    assert "saffron pin --config config/paper.yaml asks the hub" in result.stdout
    assert "Traceback" not in result.stdout
    assert "rule build_sources:" not in result.stdout
    assert not (project.root / "data" / "paper").exists()


def test_an_unknown_prompt_set_is_refused_and_one_of_ones_own_is_read(project: Project) -> None:
    project.edit("config/smoke.yaml", "dataset: development", "dataset: mine")
    refused = project.snakemake("-n", check=False)
    assert refused.returncode != 0
    assert "search.experiments.development.dataset: no prompt set mine; sources.prompts has guild_a, guild_b" in refused.stdout
    assert "Traceback" not in refused.stdout and "MissingInputException" not in refused.stdout
    own = "  prompts:\n    mine: {from: path, path: '${MY_ROWS}', files: ['*.csv'], reader: columns}\n"
    project.edit("config/smoke.yaml", "  prompts:\n", own)
    refused = project.snakemake("-n", check=False)
    assert "oracle (sandbox) knows the sandbox's world alone, prompt set mine is not of it" in refused.stdout
    project.edit("config/smoke.yaml", "  - {name: oracle, kind: sandbox}\n", "")
    assert project.jobs()["search_replicate"] == 1
    missing = project.snakemake("--cores", "1", check=False)
    assert missing.returncode != 0
    assert "sources.prompts.mine.path: ${MY_ROWS} needs the environment variable MY_ROWS, which is not set" in missing.stdout
    assert "Traceback" not in missing.stdout and "rule build_sources:" not in missing.stdout


def test_a_prompt_file_replaced_by_one_of_the_same_size_and_time_is_read_again(project: Project) -> None:
    rows = project.root / "my_rows.csv"
    rows.write_text("prompt,reference\nHow?,So\n")
    own = "  prompts:\n    mine: {from: path, path: my_rows.csv, reader: columns}\n"
    project.edit("config/smoke.yaml", "  prompts:\n", own)
    project.snakemake("--cores", "1", "sources")
    assert project.jobs("sources") == {}
    stat = rows.stat()
    rows.write_text("prompt,reference\nWhy?,So\n")
    os.utime(rows, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert project.jobs("sources") == {"build_prompts": 1, "sources": 1}
    project.edit("config/smoke.yaml", "    mine:", "    other: {from: path, path: my_rows.csv, reader: columns}\n    mine:")
    assert project.jobs("sources") == {"build_prompts": 2, "sources": 1}  # one more set runs nothing else again


def test_a_release_that_is_not_there_ends_the_run_before_its_first_job(project: Project) -> None:
    project.edit("config/smoke.yaml", "  from: train\n", "  from: released\n  released: release\n")
    (project.root / "release").mkdir()
    (project.root / "release/adapter_config.json").touch()
    result = project.snakemake("--cores", "1", check=False)
    assert result.returncode != 0
    missing = "release lacks adapter_model.safetensors, lm_head_bias.pt, unseen_mask.pt; it must name the release's whole folder"
    assert f"mrm.released: {missing}" in result.stdout
    assert "Traceback" not in result.stdout and "rule build_sources:" not in result.stdout
    assert not (project.root / "data/smoke").exists()
    assert project.jobs()["train_mrm"] == 1  # a dry run needs no release


def test_values_on_the_command_line_have_their_types(project: Project) -> None:
    jobs = project.jobs("--config", "search={jobs: runs, shards: 2}", "train_seeds=[3, 4]")
    assert (jobs["search_run"], jobs["policy"], jobs["gather_search"]) == (2 * 2 * 20, 2, 2 * 5)


def test_values_on_the_command_line_are_checked_too(project: Project) -> None:
    result = project.snakemake("-n", "--config", "search={block_size: 0}", check=False)
    assert result.returncode != 0
    assert "search.block_size: Input should be greater than or equal to 1, got 0" in result.stdout


def test_the_workflow_is_lint_free(project: Project) -> None:
    result = project.snakemake("--lint", check=False)
    assert result.returncode == 0, result.stdout
    assert "Congratulations" in result.stdout


@pytest.mark.parametrize("profile", ["default", "gpu", "slurm"])
def test_profiles_are_accepted(project: Project, profile: str) -> None:
    assert project.jobs("--workflow-profile", f"profiles/{profile}") == expected("smoke")


def test_gpu_jobs_ask_for_one_gpu_each_and_cpu_jobs_for_none(project: Project) -> None:
    paper = project.snakemake("-n", "search", config="paper").stdout
    blocks = [block for block in paper.split("\nrule ") if block.startswith(("search_run", "train_mrm", "label"))]
    assert blocks and all("gpu=1" in block for block in blocks)
    assert "gpu=1" not in project.snakemake("-n", config="smoke").stdout


def test_every_file_of_the_workflow_is_in_the_copy(project: Project) -> None:
    assert Path(project.root / "workflow/schemas/config.schema.json").exists()


def test_jobs_run_where_paths_hold_spaces_and_quotes(tmp_path: Path) -> None:
    """Project and environment alike."""
    project = copy(tmp_path / "it's a folder")
    environment = project.root / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    packages = next((environment / "lib").glob("python*/site-packages"))
    (packages / "theirs.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    (packages / "ours.pth").write_text(str(project.root / "src"))
    command = environment / "bin/saffron"
    command.write_text('#!/bin/sh\nexec "$(dirname "$0")/python" -m saffron "$@"\n')
    command.chmod(0o755)
    call = [str(environment / "bin/python"), "-m", "snakemake", "--configfile", "config/smoke.yaml", "--cores", "1", "sources"]
    done = subprocess.run(call, cwd=project.root, env=project.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project.root / "data/smoke/sources/sources.json").exists()
