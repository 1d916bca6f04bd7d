from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from analytic import nominal_best_of_n, nominal_saffron
from replica.models import random_model

from saffron import config as configs
from saffron import records
from saffron.chat import ChatFormat, ChatFormats
from saffron.config import Config, Run
from saffron.engine.compute import ModelShape
from saffron.layout import Layout
from saffron.methods import discovery
from saffron.methods.base import Block, SearchModels, SearchPrompt
from saffron.methods.random import RandomKey
from saffron.models import speed
from saffron.models.shapes import SHAPES, ShapeError, shape_of
from saffron.models.speed import Pace, Speed
from saffron.runs import plan

ROOT = Path(__file__).parents[2]
NEW_TOKENS, PROMPTS, VOCABULARY = 12, 6, 48
POLICY, GUARD = (SHAPES[f"meta-llama/{name}"] for name in ("Meta-Llama-3-8B-Instruct", "Llama-Guard-3-1B"))


def load(name: str) -> Config:
    return configs.load(ROOT / "config" / f"{name}.yaml")


@pytest.mark.parametrize("budget", [1, 2, 4, 8, 16, 32, 64])
def test_a_full_search_costs_what_the_analytic_rows_say(budget: int) -> None:
    search = load("paper").search
    lengths = plan.Lengths(policy_prompt=41, guard_prompt=162, mrm_prompt=28, guard_suffix=56)
    totals = {}
    for name in ("best_of_n", "saffron"):
        settings = search.settings_of(Run(method=name, budgets=[budget]))
        totals[name] = discovery.method(name).cost(settings, plan.size_of(budget, None, lengths, POLICY, GUARD, 32))
    exact = nominal_best_of_n(POLICY, GUARD, n=budget, new_tokens=32, policy_prompt=41, guard_prompt=162, guard_suffix=56)
    assert totals["best_of_n"] == pytest.approx(exact, rel=1e-9)
    exact = nominal_saffron(POLICY, GUARD, width=budget, new_tokens=32, policy_prompt=41, mrm_prompt=28)
    assert totals["saffron"] == pytest.approx(exact, rel=1e-9)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Layout, dict[tuple[str, str, int], float]]:
    """A finished run: models, and tables of every method's real searches with the ledger's counts."""
    layout = Layout("small", tmp_path_factory.mktemp("plan"))
    models = {role: random_model(seed, tied=True, vocabulary=VOCABULARY) for seed, role in enumerate(("policy", "guard"))}
    for role, model in models.items():
        model.config.save_pretrained(layout.model(role, 0))
    formats = ChatFormats(
        policy=ChatFormat((1, 2), (3,), ()),
        guard=ChatFormat(tuple(range(20)), (5, 6), tuple(range(10, 22))),
        mrm=ChatFormat((1,), (5, 6), ()),
        safe_id=7,
        unsafe_id=8,
        eos_id=9,
    )
    formats.save(layout.tokenizer)
    searched = SearchModels(models["policy"], models["guard"], formats, mrm=models["guard"])
    body = [11] * plan.PROMPT_TOKENS
    prompts = [
        SearchPrompt(i, formats.policy.prompt([*body[1:], 12 + i]), formats.guard.prompt(body), formats.mrm.prompt(body))
        for i in range(PROMPTS)
    ]
    values = yaml.safe_load((ROOT / "config/sandbox.yaml").read_text())
    values["sources"]["sandbox"]["guild_a"] = PROMPTS
    del values["analysis"], values["judges"]
    budgets = {"no_defense": [0], "best_of_n": [1, 8], "beam_search": [4], "rebase": [1, 8], "deal": [1, 4], "saffron": [1, 8]}
    runs = [{"method": name, "budgets": chosen} for name, chosen in budgets.items()]
    runs.append({"method": "deal", "settings_id": "greedy", "budgets": [4], "settings": {"lookahead": 0}})
    values["search"] = {
        "prefill_tokens": 0,
        "max_new_tokens": NEW_TOKENS,
        "methods": {"saffron": {"min_new_tokens": 4}},
        "experiments": {"scaling": {"dataset": "guild_a", "runs": runs}},
    }
    config = configs.parse(values, "test")
    ledger: dict[tuple[str, str, int], float] = {}
    rows = []
    for run in config.search.experiments["scaling"].runs:
        block = Block(searched, prompts, RandomKey("guild_a", 0), NEW_TOKENS)
        results = discovery.search(run.method)(block, config.search.settings_of(run), run.budgets)
        for result in results:
            key = ("scaling", run.key, result.budget)
            ledger[key] = ledger.get(key, 0.0) + result.flops_policy + result.flops_reward
            rows.append(
                {
                    "dataset": "guild_a",
                    "method": run.method,
                    "settings_id": run.settings_id,
                    "train_seed": 0,
                    "search_seed": 0,
                    "prefill_ids": [],
                    "response": "",
                    "text": "",
                    "n_new_tokens": len(result.output_ids),
                    **{name: getattr(result, name) for name in records.SEARCH.names if hasattr(result, name)},
                }
            )
    records.write_table(layout.search(0, "scaling"), rows, records.SEARCH)
    return config, layout, ledger


def test_the_plan_of_a_finished_run_agrees_with_the_ledger(
    finished: tuple[Config, Layout, dict[tuple[str, str, int], float]],
) -> None:
    config, layout, ledger = finished
    planned = plan.search_costs(config, layout)
    assert planned.keys() == ledger.keys()
    ratios = {key: planned[key] / ledger[key] for key in ledger}
    assert sum(planned.values()) == pytest.approx(sum(ledger.values()), rel=0.05)
    assert all(0.85 < ratio < 1.15 for ratio in ratios.values()), ratios


def test_before_the_run_the_plan_is_the_upper_end(finished: tuple[Config, Layout, dict[tuple[str, str, int], float]]) -> None:
    config, _, ledger = finished
    planned = plan.search_costs(config.model_copy(update={"name": "new"}), Layout("new", Path("nowhere")))
    assert all(planned[key] > 0.99 * count for key, count in ledger.items() if "greedy" not in key[1])


@pytest.mark.parametrize("name", ["paper", "paper-1b", "sandbox"])
def test_the_plan_names_every_stage_and_needs_no_model(name: str, tmp_path: Path) -> None:
    config = load(name)
    text = plan.render(config, Layout(config.name, tmp_path))
    for stage in ("sources", "models", "safety4m", "mrm", "search", "judge", "analysis, figures", "**total**"):
        assert f"\n| {stage} | " in text
    table = {row.stage: row for row in plan.rows(config, Layout(config.name, tmp_path))}
    assert table["safety4m"].flops > 0 and table["mrm"].flops > 0 and table["search"].flops > 0
    assert all(row.jobs > 0 and row.disk > 0 and row.memory > 0 for row in table.values())


def test_the_papers_label_count_and_model_sizes() -> None:
    rows = {row.stage: row for row in plan.rows(load("paper"), Layout("paper", Path("nowhere")))}
    # 160,800 training pairs make the release's 5.78 million prefixes; the test pairs come on top.
    assert rows["safety4m"].note.startswith("6,096,672 prefixes")
    assert rows["models"].disk == pytest.approx(2 * (8.03e9 + 1.5e9), rel=0.01)
    guard = GUARD.flops_per_token
    assert rows["safety4m"].flops == pytest.approx(6.1e6 * 57 * guard, rel=0.25)


#: What was measured on the kind of machine that the sandbox's published run had (two cores with AVX2).
MEASURED = Speed("float32", 2, 5.0, {"policy": Pace(29e9, 28e9, 0.0024), "guard": Pace(22e9, 25.5e9, 0.0038)})


def test_the_sandboxs_published_cpu_time_is_planned_within_a_factor_of_two() -> None:
    published = records.read_json(ROOT / "data/reference/ours/sandbox.json")
    config = configs.parse(published["settings"], "published")
    table = plan.rows(config, Layout("nowhere", Path("nowhere")))
    stages = published["runtimes"]["stages"]
    for row in table:
        measured = sum(stages[stage]["cpu_s"] for stage in row.stage.split(", "))
        assert 0.5 < plan.cpu_seconds(row, MEASURED) / measured < 2, row.stage
    cpu, wall = (sum(seconds(row, MEASURED) for row in table) for seconds in (plan.cpu_seconds, plan.wall_seconds))
    assert 0.5 < cpu / published["runtimes"]["total"]["cpu_s"] < 2
    assert cpu / 2 < wall < cpu  # of two idle cores; what else ran beside the published run is in its wall time


def test_the_real_model_is_planned_for_an_hour_on_either_kind_of_machine() -> None:
    config, nowhere = load("smollm").model_copy(update={"train_seeds": [0]}), Layout("nowhere", Path("nowhere"))
    table = plan.rows(config, nowhere)
    for rate, step, hours in ((52e9, 0.1, 1.02), (180e9, 0.05, 0.4)):
        speed = Speed("", 2, 5.0, {"policy": Pace(rate, rate, step), "guard": Pace(rate, rate, step * 8 / 30)})
        walls = [plan.wall_seconds(row, speed) for row in table]
        assert 0.5 * hours < sum(walls) / 3600 < hours
        assert sum(walls) < sum(plan.cpu_seconds(row, speed) for row in table) < 2 * sum(walls)
    experiments = config.search.experiments
    assert all(experiments[name].prompts == 100 for name in ("scaling", "matched"))
    methods = {run.method for run in experiments["scaling"].runs}
    assert methods == {run.method for run in experiments["matched"].runs} and len(methods) == 6


def test_on_a_cpu_the_plan_is_in_its_time_beside_a_finished_runs(tmp_path: Path) -> None:
    config, layout = load("smoke"), Layout("smoke", tmp_path)
    text = plan.render(config, layout, MEASURED)
    header = next(line for line in text.splitlines() if line.startswith("| stage"))
    assert "| CPU time | wall time | disk" in header and "GPU" not in text and "H100" not in text
    assert "2 cores busy (float32; GFLOP/s of a core: policy 29 reading, 28 training, 2.4 ms a step" in text
    assert "planned for 2 idle cores (float32): " in plan.brief(config, layout, MEASURED)
    stages = {stage: {"cpu_s": 7.0, "wall_s": 5.0} for stage in ("sources", "search", "analysis", "figures")}
    stages["mrm"] = {"cpu_s": None, "wall_s": 9.0}
    records.write_json(layout.runtimes, {"stages": stages, "total": {"cpu_s": 28.0, "wall_s": 120.0}})
    lines = {line.split(" | ")[0].strip("| *"): line.split(" | ") for line in plan.render(config, layout, MEASURED).splitlines()}
    assert lines["stage"][5:7] == ["CPU time, measured", "wall time, measured"]
    found = {stage: lines[stage][5:7] for stage in ("sources", "mrm", "judge", "analysis, figures", "total")}
    assert found == {
        "sources": ["7 s", "5 s"],
        "mrm": ["–", "9 s"],
        "judge": ["–", "–"],
        "analysis, figures": ["14 s", "10 s"],
        "total": ["28 s", "2 min"],
    }


def test_this_machine_is_measured_at_each_shape_once() -> None:
    before = torch.get_num_threads()
    small = ModelShape(hidden_size=16, intermediate_size=32, layers=4, heads=2, kv_heads=1, head_dim=8, vocab_size=99)
    found = speed.measure({"policy": small, "guard": replace(small, layers=2, vocab_size=7)}, "float32")
    policy, guard = found.paces["policy"], found.paces["guard"]
    assert (policy.reading, policy.training) == (guard.reading, guard.training) and policy.reading > 0 < policy.training
    assert policy.step == pytest.approx(2 * guard.step) and found.start > 0 and found.cores >= 1
    assert torch.get_num_threads() == before
    assert Speed(**(found.as_record() | {"paces": {}})).dtype == "float32"


@pytest.mark.parametrize("dtype", ["auto", "float64", "bfloat16"])
def test_a_plan_needs_no_choice_of_dtype(dtype: str) -> None:
    config = load("smollm")
    runtime = config.runtime.model_copy(update={"dtype": dtype})
    assert "| **total** |" in plan.render(config.model_copy(update={"runtime": runtime}), Layout("nowhere", Path("nowhere")))


def test_a_matched_run_is_planned_at_the_budget_that_costs_as_much() -> None:
    config = load("sandbox")
    costs = plan.search_costs(config, Layout("nowhere", Path("nowhere")))
    reference = costs["matched", "best_of_n-default", 32]
    for run in ("saffron-default", "rebase-default"):
        (found,) = [cost for (name, key, _), cost in costs.items() if (name, key) == ("matched", run)]
        assert 0.4 * reference < found <= 1.05 * reference
    widths = [budget for name, key, budget in costs if (name, key) == ("matched_paper", "saffron-default")]
    assert widths < [budget for name, key, budget in costs if (name, key) == ("matched", "saffron-default")]


def test_an_unknown_model_is_planned_once_it_is_there(tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "config/paper.yaml").read_text())
    values["models"]["hub"]["policy"]["id"] = "someone/else"
    config, layout = configs.parse(values, "test"), Layout("paper", tmp_path)
    with pytest.raises(
        ShapeError, match=r"models\.hub\.policy: the size of someone/else is not known; run `saffron models policy` first"
    ):
        plan.render(config, layout)
    model = random_model(0, tied=True, vocabulary=VOCABULARY)
    model.config.save_pretrained(layout.model("policy", 0))
    assert shape_of(config, layout, "policy") == ModelShape.from_config(model.config)
