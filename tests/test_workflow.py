from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from saffron import config as configs
from saffron import jobs, workflow
from saffron.config import Config
from saffron.figures import discovery
from saffron.runs import jobs as figure_jobs

ROOT = Path(__file__).parents[1]

JOBS: dict[str, Callable[[Config], str]] = {
    "sources": lambda config: jobs.sources(config).line,
    "tokenizer": lambda config: jobs.model(config, "tokenizer").line,
    "policy": lambda config: jobs.model(config, "policy", 0).line,
    "guard": lambda config: jobs.model(config, "guard", 0).line,
    "other_guard": lambda config: jobs.model(config, "other_guard", 0).line,
    "deepalign": lambda config: jobs.model(config, "deepalign", 0).line,
    "safety4m": lambda config: jobs.label(config, 0).line,
    "train_mrm": lambda config: jobs.train(config, 0).line,
    "evaluate_mrm": lambda config: jobs.evaluate(config, 0).line,
    "scaling/saffron": lambda config: jobs.search(config, 0, "scaling", "saffron-default").line,
    "scaling/best_of_n": lambda config: jobs.search(config, 0, "scaling", "best_of_n-default").line,
    "matched/saffron": lambda config: jobs.search(config, 0, "matched", "saffron-default").line,
    "trees": lambda config: jobs.trees(config, 0).line,
    "judge/guard": lambda config: jobs.judge(config, 0, "guard", "scaling").line,
    "judge/refusals": lambda config: jobs.judge(config, 0, "refusals", "scaling").line,
    "analysis": lambda config: jobs.analyse(config).line,
    "report": lambda config: figure_jobs.report(config).line,
}
SCALING = {"scaling/saffron", "scaling/best_of_n"}
SEARCHES = {"scaling/saffron", "scaling/best_of_n", "matched/saffron"}
JUDGES = {"judge/guard", "judge/refusals"}
MODELS = {"policy", "guard", "other_guard", "deepalign"}


def sandbox(**edits: Any) -> Config:
    """The sandbox without its ablations, some keys set, ``section__key=value``; list items are addressed by index."""
    values = yaml.safe_load((ROOT / "config/sandbox.yaml").read_text())
    experiments = values["search"]["experiments"]
    values["search"]["experiments"] = {name: item for name, item in experiments.items() if item.get("group") != "ablations"}
    del values["mrm"]["variants"], values["analysis"]
    del values["search"]["experiments"]["deepalign"]["role"]  # which ties its prompts to those of the experiment scaling
    for path, value in edits.items():
        at: Any = values
        *parents, last = path.split("__")
        for part in parents:
            at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
        at[int(last) if isinstance(at, list) else last] = value
    return configs.parse(values, "test")


@pytest.mark.parametrize(
    ("edit", "value", "reads_it"),
    [
        ("sources__sandbox__benchmark_seed", 99, {"sources"}),
        ("models__sandbox__vocab_size", 900, {"tokenizer", "analysis"}),
        ("models__sandbox__policy_safety__steps", 7, {"policy"}),
        ("models__sandbox__guard_outcome_share", 0.1, {"guard", "other_guard"}),
        ("models__sandbox__deepalign_training__steps", 7, {"deepalign"}),
        ("safety4m__turns", "first", {"safety4m"}),
        ("mrm__lora_rank", 8, {"train_mrm", "evaluate_mrm"}),
        ("mrm__schedule", "constant", {"train_mrm", "evaluate_mrm"}),
        ("mrm__draw", 1, {"train_mrm", "evaluate_mrm"}),
        ("mrm__evaluation_prefixes", 50, {"evaluate_mrm", "analysis"}),
        ("mrm__variants", {"default": {}, "other": {"bias": "absent"}}, set()),
        (
            "mrm__variants",
            {"default": {"bias": "absent"}},
            {"train_mrm", "evaluate_mrm", "scaling/saffron", "matched/saffron", "trees"},
        ),
        ("models__sandbox__guard__hidden_size", 32, {"guard", "other_guard"}),
        ("search__max_new_tokens", 20, SEARCHES | {"trees"}),
        ("search__seeds", [3], SEARCHES | {"trees", "analysis"}),
        ("search__experiments__scaling__seeds", [0, 3], {"scaling/saffron", "scaling/best_of_n", "analysis"}),
        (
            "search__experiments__scaling__dataset",
            "guild_b",
            {"scaling/saffron", "scaling/best_of_n", "trees", "analysis"} | JUDGES,
        ),
        ("search__block_size", 3, SEARCHES | {"trees"} | JUDGES),
        ("judges__0__settings", {"threshold": 1.0}, {"judge/guard", "analysis"}),
        ("judges__0__settings", {"reads_prefill": True}, {"judge/guard", "analysis"}),
        ("judges__3", {"name": "more", "kind": "refusals"}, {"analysis"}),
        ("judges__3", {"name": "more", "kind": "refusals", "experiments": ["scaling"]}, set()),
        ("search__methods", {"rebase": {"reward_reads_prefill": True}}, {"analysis"}),
        ("search__methods", {"saffron": {"top_p": 0.7}}, {"scaling/saffron", "matched/saffron", "trees", "analysis"}),
        ("search__experiments__scaling__runs__2__budgets", [1, 2], {"scaling/saffron", "analysis"}),
        ("search__experiments__matched__match__tolerance", 1.1, {"matched/saffron", "analysis"}),
        ("search__experiments__scaling__prompts", 5, {"scaling/saffron", "scaling/best_of_n", "analysis"}),
        ("search__jobs", "runs", set()),
        ("analysis__confidence", 0.9, {"analysis", "evaluate_mrm"}),
        ("analysis__bootstrap_samples", 120, {"analysis", "evaluate_mrm"}),
        ("report__show_text", False, {"report"}),
        ("runtime__dtype", "float64", MODELS | SEARCHES | {"safety4m", "train_mrm", "evaluate_mrm", "trees", "judge/guard"}),
    ],
)
def test_a_job_changes_if_and_only_if_it_reads_the_key(edit: str, value: Any, reads_it: set[str]) -> None:
    before, after = sandbox(), sandbox(**{edit: value})
    assert {name for name, of in JOBS.items() if of(before) != of(after)} == reads_it


def test_jobs_are_one_line_of_json_and_stable() -> None:
    for of in JOBS.values():
        line = of(sandbox())
        assert "\n" not in line
        assert json.loads(line)
        assert line == of(sandbox())


def test_matched_runs_wait_for_the_run_they_are_matched_to() -> None:
    config = sandbox()
    assert workflow.references(config, "matched", "saffron-default") == ["best_of_n-default"]
    assert workflow.references(config, "matched", "best_of_n-default") == []
    assert workflow.references(config, "scaling", "saffron-default") == []
    assert workflow.run_order(config, "matched")[0] == "best_of_n-default"
    assert sorted(workflow.run_order(config, "matched")) == sorted(run.key for run in config.search.experiments["matched"].runs)


def test_of_two_runs_of_the_matched_method_the_first_is_the_reference_and_the_other_waits_for_it() -> None:
    runs = [
        {"method": "saffron", "budgets": [1, 2]},
        {"method": "best_of_n", "budgets": [8]},
        {"method": "best_of_n", "settings_id": "reads_prefill", "budgets": [2, 4], "settings": {"reward_reads_prefill": True}},
    ]
    matched = {"dataset": "guild_b", "role": "matched", "match": {"method": "best_of_n", "budget": 8}, "runs": runs}
    config = sandbox(search__experiments={"matched": matched}, judges=[{"name": "guard", "kind": "guard"}])
    assert workflow.references(config, "matched", "best_of_n-reads_prefill") == ["best_of_n-default"]
    assert workflow.run_order(config, "matched")[0] == "best_of_n-default"


def test_runs_that_load_the_same_models_are_one_job_and_matched_ones_another() -> None:
    variants = {"default": {}, "other": {"bias": "absent"}}
    extra = {
        "dataset": "guild_a",
        "group": "ablations",
        "runs": [
            {"method": "best_of_n", "budgets": [2]},
            {"method": "saffron", "settings_id": "prm", "budgets": [2], "settings": {"scorer": "prm"}},
            {"method": "saffron", "settings_id": "other", "budgets": [2], "settings": {"mrm": "other"}},
        ],
    }
    config = sandbox(mrm__variants=variants, search__experiments__extra=extra)
    parts = workflow.search_parts(config, "replicate")
    assert set(parts) == {"early-policy", "early-policy-default", "policy", "policy-default", "deepalign", "matched"}
    assert {name for name, _ in parts["early-policy"]} == {"development", "benign"}  # before any benchmark
    assert parts["deepalign"] == [("deepalign", "no_defense-deepalign")]
    assert parts["policy-default"] == [("scaling", "saffron-default")]
    assert ("matched", "best_of_n-default") in parts["policy"]  # the run that the others are matched to
    assert {name for name, _ in parts["matched"]} == {"matched", "matched_paper"}
    assert workflow.search_parts(config, "ablations") == {
        "policy": [("extra", "best_of_n-default"), ("extra", "saffron-prm")],
        "policy-other": [("extra", "saffron-other")],
    }


@pytest.mark.parametrize("group", workflow.GROUPS)
def test_every_run_is_in_one_job_and_none_waits_for_a_run_of_its_own_job_or_of_one_that_waits(group: str) -> None:
    """So that no two jobs wait for each other."""
    config = configs.load(ROOT / "config/sandbox.yaml")
    parts = workflow.search_parts(config, group)
    assert sorted(run for runs in parts.values() for run in runs) == sorted(workflow.group_runs(config, group))
    home = {run: part for part, runs in parts.items() for run in runs}
    waits = {(home[name, key], home[name, other]) for name, key in home for other in workflow.references(config, name, key)}
    assert all(part == "matched" and other != "matched" for part, other in waits)


def test_experiments_are_found_by_role_under_any_name() -> None:
    values = yaml.safe_load((ROOT / "config/sandbox.yaml").read_text())
    values["search"]["experiments"] = {f"my_{name}": item for name, item in values["search"]["experiments"].items()}
    for ablation in values["analysis"]["ablations"].values():
        ablation["experiment"] = "my_ablations"
    for judge in values["judges"]:
        judge |= {"experiments": [f"my_{name}" for name in judge["experiments"]]} if "experiments" in judge else {}
    config = configs.parse(values, "test")
    shipped = configs.load(ROOT / "config/sandbox.yaml")
    named = ("experiment_", "judges_apart_")  # after each experiment
    of_experiments = {f"experiment_{name}" for name in shipped.search.experiments} | {"judges_apart_scaling"}
    found, known = (
        {name: exhibit.outputs(of) for name, exhibit in discovery.exhibits(of).items() if not name.startswith(named)}
        for of in (config, shipped)
    )
    assert found == {name: [f"my_{experiment}" for experiment in read] for name, read in known.items()}
    assert discovery.exhibits(shipped).keys() == known.keys() | of_experiments
    assert [f"my_{name}" for name in workflow.before_benchmarks(shipped)] == workflow.before_benchmarks(config)
    assert workflow.recorded_prompts(config) == "guild_a"


def test_groups_pick_their_experiments_and_mrm_variants() -> None:
    config = sandbox(
        mrm__variants={"default": {}, "other": {"bias": "absent"}, "unused": {}},
        search__experiments__extra={
            "dataset": "guild_a",
            "group": "ablations",
            "runs": [{"method": "saffron", "budgets": [2], "settings": {"mrm": "other"}}],
        },
    )
    assert "extra" not in workflow.experiments(config)
    assert list(workflow.experiments(config, "ablations")) == ["extra"]
    assert workflow.variants(config) == ["default"]
    assert workflow.variants(config, "ablations") == ["default", "other"]
    assert workflow.variants(config, None) == ["default", "other", "unused"]


def test_a_run_waits_for_the_models_that_its_method_reads_alone() -> None:
    config = configs.load(ROOT / "config/sandbox.yaml")
    runs = {run.key: run for item in config.search.experiments.values() for run in item.runs}
    read = {key: workflow.models_of(config, run) for key, run in runs.items()}
    assert read["no_defense-default"] == ["policy"] and read["no_defense-deepalign"] == ["deepalign"]
    assert read["best_of_n-default"] == read["saffron-prm"] == ["policy", "guard"]
    assert read["saffron-default"] == ["policy"]  # and the MRM


def test_only_saffron_with_its_own_model_loads_an_mrm() -> None:
    config = sandbox()
    used = {run.key: workflow.mrms_of(config, run) for run in config.search.experiments["scaling"].runs}
    assert {key for key, name in used.items() if name} == {"saffron-default"}
    prm = sandbox(search__experiments__scaling__runs__2__settings={"scorer": "prm"})
    assert workflow.mrms_of(prm, prm.search.experiments["scaling"].runs[2]) == []
