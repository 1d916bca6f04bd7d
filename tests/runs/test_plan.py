from __future__ import annotations

from pathlib import Path

import pytest
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
from saffron.models.shapes import SHAPES, ShapeError, shape_of
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
