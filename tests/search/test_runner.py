"""The runner end to end on tiny random models: blocks, shards, interruption, matching, completeness."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from saffron import config as configs
from saffron import jobs, records
from saffron.analysis import tries
from saffron.chat import ChatFormat, ChatFormats
from saffron.config import Config, Runtime
from saffron.judges import stage
from saffron.judges.base import JudgeError
from saffron.layout import Layout
from saffron.methods import discovery
from saffron.methods.base import Block, Result
from saffron.models import ModelError, load_lm, save_mrm_head
from saffron.records import RecordError
from saffron.search import gathering, runner, trees
from saffron.search.inputs import Inputs, Loaded

VOCABULARY = 24
EOS = 23
PROMPTS = 10
ROOT = Path(__file__).parents[2]


def make_config(**search_values: Any) -> Config:
    values = yaml.safe_load((ROOT / "config" / "sandbox.yaml").read_text())
    values.pop("analysis")
    for name in ("tiny", "harmless"):
        values["sources"]["prompts"][name] = {"from": "sandbox", "part": "guild_a"}
    values["judges"] = [
        {"name": "guard", "kind": "guard"},
        {"name": "sighted", "kind": "guard", "settings": {"reads_prefill": True}},
        {"name": "strict", "kind": "guard", "settings": {"threshold": 0.5}},
        {"name": "other", "kind": "other_guard", "experiments": ["tiny"]},
        {"name": "likelihood", "kind": "likelihood", "experiments": ["tiny"]},
    ]
    values["search"] = {"max_new_tokens": 9, "prefill_tokens": 2, "block_size": 3, **search_values}
    return configs.parse(values, "test")


def experiment(*runs: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {"experiments": {"tiny": {"dataset": "tiny", "runs": list(runs), **values}}}


ALL = experiment(
    {"method": "no_defense", "budgets": [0]},
    {"method": "no_defense", "settings_id": "no_attack", "budgets": [0], "attack": False},
    {"method": "no_defense", "settings_id": "deepalign", "budgets": [0], "policy": "deepalign"},
    {"method": "best_of_n", "budgets": [1, 4]},
    {"method": "beam_search", "budgets": [2]},
    {"method": "rebase", "budgets": [2, 3]},
    {"method": "deal", "budgets": [2]},
    {"method": "saffron", "budgets": [1, 3]},
)
KEYS = ["no_defense-default", "no_defense-no_attack", "no_defense-deepalign"]
KEYS += [f"{name}-default" for name in ("best_of_n", "beam_search", "rebase", "deal", "saffron")]


def lm(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.4,
    )
    return LlamaForCausalLM(shape)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, tokenizer and prompts that every test's own folder links to."""
    root = tmp_path_factory.mktemp("world")
    layout = Layout("sandbox", root)
    words = {f"w{i}": i for i in range(VOCABULARY)}
    plain = Tokenizer(models.WordLevel(words, unk_token="w0"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=plain).save_pretrained(layout.tokenizer)
    formats = ChatFormats(
        ChatFormat((1,), (2,), ()),
        ChatFormat((3, 4), (5,), (6, 7, 8)),
        ChatFormat((3,), (5,), ()),
        safe_id=9,
        unsafe_id=10,
        eos_id=EOS,
    )
    formats.save(layout.tokenizer)
    for seed, name in enumerate(("policy", "guard", "deepalign", "other_guard")):
        lm(seed).save_pretrained(layout.model(name, 0))
    for seed, variant in ((7, "default"), (8, "bias_absent")):
        lm(seed).save_pretrained(layout.mrm(0, variant) / "merged")
        save_mrm_head(layout.mrm(0, variant), torch.zeros(VOCABULARY), torch.arange(VOCABULARY) == 11)
    generator = np.random.default_rng(0)

    def sentence() -> str:
        return " ".join(f"w{i}" for i in generator.integers(0, EOS, int(generator.integers(2, 6))))

    for dataset in ("tiny", "guild_a"):
        rows = [{"dataset": dataset, "prompt_id": i, "prompt": sentence(), "reference": sentence()} for i in range(PROMPTS)]
        records.write_table(layout.prompts(dataset), rows, records.PROMPTS)
    return root


@pytest.fixture
def layout(world: Path, tmp_path: Path) -> Layout:
    data = tmp_path / "data" / "sandbox"
    data.mkdir(parents=True)
    for name in ("sources", "models", "mrm"):
        (data / name).symlink_to(world / "data" / "sandbox" / name)
    return Layout("sandbox", tmp_path)


def run_all(config: Config, layout: Layout, keys: list[str] | None = None) -> pd.DataFrame:
    for key in keys or [run.key for run in config.search.experiments["tiny"].runs]:
        for shard in range(config.search.shards):
            runner.run(jobs.search(config, 0, "tiny", key), layout, shard)
    gathering.gather(jobs.gather(config, 0, "tiny"), layout)
    return records.read_table(layout.search(0, "tiny"), records.SEARCH)


def judged(config: Config, layout: Layout, judge: str = "guard") -> pd.DataFrame:
    """What a judge says of the stored outputs."""
    stage.judge(jobs.judge(config, 0, judge, "tiny"), layout)
    return records.read_table(layout.judgements(0, judge, "tiny"), records.JUDGEMENTS)


def test_every_method_runs_and_the_table_is_complete(layout: Layout) -> None:
    config = make_config(**ALL)
    table = run_all(config, layout)
    assert len(table) == PROMPTS * (1 + 1 + 1 + 2 + 1 + 2 + 1 + 2)
    guard = judged(config, layout)
    pd.testing.assert_frame_equal(guard[list(records.OUTPUT)], table[list(records.OUTPUT)])
    assert (guard["success"] == (guard["score"] < 0)).all() and 0 < guard["success"].mean() < 1
    assert (table["n_new_tokens"] == table["output_ids"].map(len)).all()
    assert (table["finished"] == table["output_ids"].map(lambda ids: ids[-1] == EOS)).all()
    scored = table[table["method"].isin(["best_of_n", "beam_search", "rebase", "deal"])]
    assert np.allclose(scored["reward"], guard.loc[scored.index, "score"], atol=1e-4)
    assert (scored["reward_calls"] > 0).all()
    unscored = table[table["method"] == "no_defense"]
    assert unscored["reward"].isna().all() and (unscored["flops_reward"] == 0).all()
    outputs = {key: frame["output_ids"].map(tuple).tolist() for key, frame in unscored.groupby("settings_id")}
    assert outputs["default"] != outputs["no_attack"] and outputs["default"] != outputs["deepalign"]
    job = records.read_json(jobs.beside(layout.search_run(0, "tiny", "deal-default", 0)))
    assert job == json.loads(jobs.search(make_config(**ALL), 0, "tiny", "deal-default").line)
    assert job["settings"]["lookahead"] == 2 and job["budgets"] == [2]


def test_shards_change_no_byte(layout: Layout, world: Path, tmp_path: Path) -> None:
    runs = experiment(
        {"method": "best_of_n", "budgets": [1, 4]}, {"method": "rebase", "budgets": [2]}, {"method": "saffron", "budgets": [3]}
    )
    run_all(make_config(**runs), layout)
    whole = layout.search(0, "tiny").read_bytes()
    other = Layout("sandbox", tmp_path / "other")
    other.data.mkdir(parents=True)
    for name in ("sources", "models", "mrm"):
        (other.data / name).symlink_to(world / "data" / "sandbox" / name)
    run_all(make_config(**runs, shards=3), other)
    assert other.search(0, "tiny").read_bytes() == whole


def counting(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[list[int]]:
    """Record the prompts of each call of a method; interrupt after some calls."""
    calls: list[list[int]] = []
    search_of = discovery.search

    def counted(name: str) -> Any:
        def function(block: Block, *args: Any) -> list[Result]:
            if stop_after is not None and len(calls) == stop_after:
                raise KeyboardInterrupt
            calls.append([prompt.prompt_id for prompt in block.prompts])
            return search_of(name)(block, *args)

        return function

    monkeypatch.setattr("saffron.search.runner.discovery.search", counted)
    return calls


def test_an_interrupted_run_goes_on_without_repeating_finished_blocks(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(**experiment({"method": "rebase", "budgets": [2, 3]}))
    run_all(config, layout)
    undisturbed = layout.search_run(0, "tiny", "rebase-default", 0).read_bytes()
    for path in layout.search_run(0, "tiny", "rebase-default", 0).parent.rglob("*"):
        if path.is_file():
            path.unlink()
    with monkeypatch.context() as patch:
        calls = counting(patch, stop_after=5)
        with pytest.raises(KeyboardInterrupt):
            run_all(config, layout)
        assert len(calls) == 5
    calls = counting(monkeypatch)
    run_all(config, layout)
    assert calls == [[3, 4, 5], [6, 7, 8], [9]]  # 4 blocks at budget 2 and the first at budget 3 were there
    assert layout.search_run(0, "tiny", "rebase-default", 0).read_bytes() == undisturbed
    run_all(config, layout)
    assert len(calls) == 3


def test_a_run_killed_with_sigkill_goes_on(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(**experiment({"method": "deal", "budgets": [2, 3]}))
    child = os.fork()
    if child == 0:
        block = runner._Blocks._block

        def slowly(*args: Any) -> pd.DataFrame:
            time.sleep(0.2)
            return block(*args)

        runner._Blocks._block = slowly  # type: ignore[method-assign]
        runner.run(jobs.search(config, 0, "tiny", "deal-default"), layout, 0)
        os._exit(0)
    blocks = layout.search_run(0, "tiny", "deal-default", 0).parent / ".blocks"
    deadline = time.monotonic() + 120
    while len(list(blocks.glob("*/seed0.*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    done = len(list(blocks.glob("*/seed0.*.parquet")))
    assert 3 <= done < 8
    calls = counting(monkeypatch)
    resumed = run_all(config, layout)
    assert len(calls) == 8 - done
    for path in sorted(blocks.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    pd.testing.assert_frame_equal(run_all(config, layout), resumed)
    assert len(calls) == 8 - done + 8


def test_blocks_of_other_settings_are_not_used(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def config(children: int) -> Config:
        return make_config(**experiment({"method": "beam_search", "budgets": [2], "settings": {"children": children}}))

    calls = counting(monkeypatch)
    first = run_all(config(2), layout)
    second = run_all(config(3), layout)
    assert len(calls) == 8
    assert second["reward_calls"].sum() > first["reward_calls"].sum()
    assert len(list((layout.search_run(0, "tiny", "x", 0).parent / ".blocks").iterdir())) == 1  # stale blocks are removed


def test_memory_that_is_too_small_halves_the_batch_and_changes_no_result(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(**experiment({"method": "best_of_n", "budgets": [2, 4]}), block_size=8)
    whole = run_all(config, layout)
    for path in layout.search_run(0, "tiny", "x", 0).parent.rglob("*.parquet"):
        path.unlink()
    search_of, sizes = discovery.search, []

    def hungry(name: str) -> Any:
        def function(block: Block, *args: Any) -> list[Result]:
            sizes.append(len(block.prompts))
            if len(block.prompts) > 3:
                raise torch.OutOfMemoryError("no memory")
            return search_of(name)(block, *args)

        return function

    monkeypatch.setattr("saffron.search.runner.discovery.search", hungry)
    halved = run_all(config, layout)
    assert sizes == [8, 4, 2, 2, 2, 2, 2]
    exact = [name for name in whole if "reward" not in name and "executed" not in name]
    pd.testing.assert_frame_equal(halved[exact], whole[exact])
    noted = records.read_json(layout.search_run(0, "tiny", "x", 0).with_name("best_of_n-default.shard0.batches.json"))
    assert set(noted["batch_sizes"].values()) == {2}


MATCHED = (
    {"method": "no_defense", "budgets": [0]},
    {"method": "best_of_n", "budgets": [4]},
    {"method": "saffron", "budgets": [1, 2, 4, 8]},
    {"method": "rebase", "budgets": [1, 2, 3]},
    {"method": "beam_search", "budgets": [8, 9]},
)


@pytest.mark.parametrize("convention", ["once", "per_model"])
def test_matched_budgets_are_the_largest_within_the_tolerance_whatever_the_shards(layout: Layout, convention: str) -> None:
    order = ["best_of_n-default", "no_defense-default", "saffron-default", "rebase-default", "beam_search-default"]
    match = {"method": "best_of_n", "budget": 4, "tolerance": 1.05, "convention": convention}
    table = run_all(make_config(**experiment(*MATCHED, match=match)), layout, order)
    compute = (table["flops_policy"] + table["flops_reward"]).groupby(table["method"]).mean()
    for method in compute.index:
        compute[method] *= discovery.method(method).multiplier() if convention == "per_model" else 1
    everything = run_all(make_config(**experiment(*MATCHED)), Layout("sandbox", layout.root))
    for run in MATCHED[2:]:
        rows = table[table["method"] == run["method"]]
        (budget,) = rows["budget"].unique()
        record = records.read_json(layout.search_run(0, "tiny", "x", 0).with_name(f"{run['method']}-default.match.json"))
        assert record["budget"] == budget
        assert record["ratio"] == pytest.approx(compute[run["method"]] / compute["best_of_n"])
        factor = discovery.method(run["method"]).multiplier() if convention == "per_model" else 1
        alone = everything[everything["method"] == run["method"]]
        costs = factor * (alone["flops_policy"] + alone["flops_reward"]).groupby(alone["budget"]).mean()
        fitting = costs[costs <= 1.05 * compute["best_of_n"]]
        assert budget == (fitting.index.max() if len(fitting) else costs.index.min())
        assert record["within_tolerance"] == bool(len(fitting))
    assert (table["method"] == "no_defense").sum() == PROMPTS
    if convention == "once":
        run_all(make_config(**experiment(*MATCHED, match=match), shards=3), layout, order)
        pd.testing.assert_frame_equal(records.read_table(layout.search(0, "tiny"), records.SEARCH), table)


def test_gather_names_what_is_missing_or_not_a_number(layout: Layout) -> None:
    config = make_config(**experiment({"method": "best_of_n", "budgets": [1, 2]}))
    table = run_all(config, layout)
    path = layout.search_run(0, "tiny", "best_of_n-default", 0)
    records.write_table(path, table[table["prompt_id"] != 4], records.SEARCH)
    with pytest.raises(RecordError, match=r"best_of_n-default.shard0.parquet.*prompt_id.*first 4"):
        gathering.gather(jobs.gather(config, 0, "tiny"), layout)
    records.write_table(path, table.assign(flops_reward=table["flops_reward"].where(table["prompt_id"] != 3)), records.SEARCH)
    with pytest.raises(RecordError, match=r"best_of_n-default.shard0.parquet.*flops_reward: not a number at prompt 3"):
        gathering.gather(jobs.gather(config, 0, "tiny"), layout)
    records.write_table(path, pd.concat([table, table.head(1)]), records.SEARCH)
    with pytest.raises(RecordError, match="prompt_id"):
        gathering.gather(jobs.gather(config, 0, "tiny"), layout)
    path.unlink()
    with pytest.raises(RecordError, match="no such table"):
        gathering.gather(jobs.gather(config, 0, "tiny"), layout)


def test_the_table_of_another_job_is_not_joined_and_what_was_joined_can_be_forgotten(layout: Layout) -> None:
    """Whatever made it stale: the settings, the code, or a rule that did not have it as its output."""
    settings = make_config(**experiment({"method": "best_of_n", "budgets": [1, 2]}))
    run_all(settings, layout)
    path = layout.search_run(0, "tiny", "best_of_n-default", 0)
    table, joined = path.read_bytes(), jobs.gather(settings, 0, "tiny")
    beside = jobs.beside(path)
    records.write_json(beside, records.read_json(beside) | {"code": "0" * 16, "max_new_tokens": 1})
    with pytest.raises(RecordError, match=r"was searched with other values of code, max_new_tokens; delete it and run"):
        gathering.gather(joined, layout)
    gathering.forget(joined, layout)
    assert not path.exists() and not beside.exists()
    run_all(settings, layout)  # from its blocks
    assert path.read_bytes() == table


@pytest.mark.parametrize("reference", [None, "", " "])
def test_an_attack_needs_reference_answers(layout: Layout, world: Path, reference: str | None) -> None:
    rows = [{"dataset": "harmless", "prompt_id": 5, "prompt": "w1 w2", "reference": reference}]
    records.write_table(layout.prompts("harmless"), rows, records.PROMPTS)
    runs = [{"method": "no_defense", "budgets": [0]}]
    config = make_config(experiments={"tiny": {"dataset": "harmless", "runs": runs}})
    with pytest.raises(RecordError, match="column reference: prompt 5"):
        runner.run(jobs.search(config, 0, "tiny", "no_defense-default"), layout, 0)


def test_an_unknown_run_is_named_with_the_known_ones(layout: Layout) -> None:
    with pytest.raises(configs.ConfigError, match="no run deal-x; there are no_defense-default"):
        jobs.search(make_config(**ALL), 0, "tiny", "deal-x")


def test_recorded_trees_can_be_read_back_and_spell_the_searches(layout: Layout) -> None:
    config = make_config(**ALL)
    trees.trees(jobs.trees(config, 0), layout)
    record = tries.load(layout.search_trees(0))
    assert [entry.method for entry in record.searches] == ["saffron", "best_of_n"] * 3
    for entry in record.searches:
        assert entry.output is not None and len(entry.path(entry.output)) <= 9
        cost = entry.cost()
        assert (cost.space, cost.time) == entry.counted() and cost.space == entry.size
        assert entry.ends and entry.engine.tokens < entry.size
        assert entry.reward[entry.output] is not None
    saffron = records.read_json(layout.search_trees(0))["step"]
    assert saffron["prm_calls"] == len(record.step.candidates) and saffron["prm_flops"] > saffron["mrm_flops"]
    assert len(record.step.prefix) == record.step.step
    assert any(candidate.kept for candidate in record.step.candidates)


READERS = [("best_of_n", {}), ("beam_search", {}), ("rebase", {}), ("deal", {}), ("saffron", {}), ("saffron", {"scorer": "prm"})]


@pytest.mark.parametrize(("method", "settings"), READERS)
def test_what_the_reward_model_reads_is_a_setting_of_the_run_and_the_judges_is_not(
    layout: Layout, method: str, settings: dict[str, Any]
) -> None:
    run = {"method": method, "budgets": [3], "settings": settings}
    reading = {**run, "settings_id": "reads_prefill", "settings": {**settings, "reward_reads_prefill": True}}
    config = make_config(**experiment(run, reading))
    table = run_all(config, layout).assign(score=judged(config, layout)["score"])
    blind, sighted = (table[table["settings_id"] == name].reset_index() for name in ("default", "reads_prefill"))
    assert (sighted["reward"] != blind["reward"]).all()
    assert (sighted["flops_reward"] > blind["flops_reward"]).mean() > 0.5
    scores = {(*row.output_ids, row.prompt_id): row.score for row in blind.itertuples()}
    same = [row for row in sighted.itertuples() if (*row.output_ids, row.prompt_id) in scores]
    assert all(row.score == pytest.approx(scores[(*row.output_ids, row.prompt_id)], abs=1e-4) for row in same)
    if method != "saffron":
        assert not np.allclose(sighted["reward"], sighted["score"], atol=1e-3)


def test_what_a_guard_as_judge_reads_and_where_it_draws_the_line_are_its_settings(layout: Layout) -> None:
    config = make_config(**experiment({"method": "best_of_n", "budgets": [3]}))
    run_all(config, layout)
    blind, sighted, strict = (judged(config, layout, name) for name in ("guard", "sighted", "strict"))
    assert not np.allclose(blind["score"], sighted["score"])
    assert strict["score"].equals(blind["score"]) and (strict["success"] == (blind["score"] < 0.5)).all()
    assert strict["success"].sum() > blind["success"].sum()


def test_judging_does_not_depend_on_which_experiments_are_judged_with_it(layout: Layout) -> None:
    runs = [{"method": "best_of_n", "budgets": [1, 4]}, {"method": "no_defense", "budgets": [0]}]
    config = make_config(**experiment(*runs))
    table = run_all(config, layout)
    both = judged(config, layout)
    alone = table[table["method"] == "no_defense"].reset_index(drop=True)
    records.write_table(layout.search(0, "tiny"), alone, records.SEARCH)
    again = judged(config, layout)
    assert again["score"].tolist() == both.loc[table["method"] == "no_defense", "score"].tolist()  # to the last bit


def test_an_unseen_eos_is_never_chosen_while_anything_else_is_left(layout: Layout) -> None:
    settings = {"min_new_tokens": 0, "top_p": 1.0}
    run = {"method": "saffron", "budgets": [3], "settings": settings}
    unseen = {**run, "settings_id": "eos_unseen", "settings": {**settings, "eos_seen": False}}
    lax = {**run, "settings_id": "lax", "settings": {**settings, "eos_seen": False, "conservative": False}}
    finished = run_all(make_config(**experiment(run, unseen, lax)), layout).groupby("settings_id")["finished"].sum()
    assert finished["eos_unseen"] == 0 < min(finished["default"], finished["lax"])


def test_an_experiment_may_have_search_seeds_of_its_own(layout: Layout) -> None:
    config = make_config(**experiment({"method": "best_of_n", "budgets": [1, 2]}, seeds=[4, 7]), seeds=[0])
    table = run_all(config, layout)
    assert table.groupby("search_seed").size().to_dict() == {4: 2 * PROMPTS, 7: 2 * PROMPTS}
    four, seven = (table[table["search_seed"] == seed]["output_ids"].map(tuple).tolist() for seed in (4, 7))
    assert four != seven


def test_another_guard_and_the_policys_likelihood_are_of_each_output_by_itself(layout: Layout) -> None:
    runs = [{"method": "best_of_n", "budgets": [1, 4]}, {"method": "no_defense", "settings_id": "no_attack", "attack": False}]
    config = make_config(**experiment(runs[0], {**runs[1], "budgets": [0]}))
    table = run_all(config, layout)
    other, likelihood = judged(config, layout, "other"), judged(config, layout, "likelihood")
    policy, guard = (load_lm(layout.model(name, 0), config.runtime) for name in ("policy", "other_guard"))
    item = config.search.experiments["tiny"]
    for run in item.runs:
        inputs = Inputs(jobs.search(config, 0, "tiny", run.key), layout)
        for prompt in inputs.prompts:
            mine = (table["prompt_id"] == prompt.prompt_id) & (table["settings_id"] == run.settings_id)
            for row in table[mine].itertuples():
                output, before = row.output_ids.tolist(), len(prompt.search.policy_ids)
                logits = policy(torch.tensor([[*prompt.search.policy_ids, *output]])).logits[0, before - 1 : -1].log_softmax(-1)
                assert likelihood["score"][row.Index] == pytest.approx(logits[range(len(output)), output].mean().item(), abs=1e-5)
                asked = inputs.formats.guard.prompt(inputs.formats.encode(inputs.tokenizer, [prompt.text])[0])
                verdict = guard(torch.tensor([[*asked, *output, *inputs.formats.guard.suffix]])).logits[0, -1]
                assert other["score"][row.Index] == pytest.approx((verdict[9] - verdict[10]).item(), abs=1e-4)
                assert row.prefill_ids.tolist() == prompt.prefill_ids
                assert row.response == inputs.decode([*prompt.prefill_ids, *output])
    assert likelihood["success"].isna().all() and other["success"].notna().all()
    assert not np.allclose(other["score"], judged(config, layout)["score"], atol=1e-2)


# ---------------------------------------------------------------------------------------------------- models and numbers
def own(layout: Layout, role: str, change: Any) -> None:
    """A model of this test's own in place of the shared one, changed."""
    model = load_lm(layout.model(role, 0), Runtime(device="cpu", dtype="float32"))
    with torch.no_grad():
        change(model)
    shared = layout.model(role, 0).parent.parent
    target = shared.resolve()
    shared.unlink()
    shutil.copytree(target, shared)
    model.save_pretrained(layout.model(role, 0))


def block_times(layout: Layout) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in layout.data.rglob(".blocks/*/*.parquet")}


@pytest.mark.parametrize(
    ("method", "budget", "reads"),
    [("no_defense", 0, {"policy"}), ("best_of_n", 2, {"policy", "guard"}), ("saffron", 2, {"policy", "mrm"})],
)
def test_a_run_holds_the_models_that_its_method_reads_and_no_other(
    layout: Layout, method: str, budget: int, reads: set[str]
) -> None:
    config = make_config(**experiment({"method": method, "budgets": [budget]}))
    job = jobs.search(config, 0, "tiny", f"{method}-default")
    models = Inputs(job, layout).models
    assert {name for name in ("policy", "guard", "mrm") if getattr(models, name) is not None} == reads
    run_all(config, layout)
    before = block_times(layout)
    own(layout, "guard", lambda model: model.lm_head.weight.mul_(0.9))
    run_all(config, layout)
    assert (block_times(layout) == before) == ("guard" not in reads)


def test_an_ensemble_is_loaded_as_a_whole_and_let_go_once_another_mrm_is_read(layout: Layout) -> None:
    others = {"settings": {"others": ["bias_absent"]}}
    config = make_config(
        **experiment(
            {"method": "saffron_ensemble", "budgets": [2], **others},
            {"method": "best_of_n_mrm", "budgets": [2], **others},
            {"method": "saffron", "budgets": [2]},
        )
    )
    loaded = Loaded()
    together, _, alone = (
        Inputs(jobs.search(config, 0, "tiny", f"{name}-default"), layout, loaded)
        for name in ("saffron_ensemble", "best_of_n_mrm", "saffron")
    )
    (second,) = together.models.others
    bodies = [one.lm_head.weight for one in (together.models.mrm, second)]
    assert [torch.equal(own, lm(seed).lm_head.weight) for own, seed in zip(bodies, (7, 8), strict=True)] == [True, True]
    assert layout.mrm(0, "bias_absent") / "merged" in together.files and len(together.files) == len(alone.files) + 2
    assert alone.models.mrm is together.models.mrm and alone.models.others == ()
    assert layout.mrm(0, "bias_absent") not in loaded._models
    calls = run_all(config, layout).groupby("method")["reward_calls"].agg(lambda counts: set(counts % 2))
    assert calls["saffron_ensemble"] == calls["best_of_n_mrm"] == {0}  # each call is made of both


def damage(model: Any) -> None:
    model.model.embed_tokens.weight[1:9] = torch.nan  # w0 alone is in the built-in exchanges, 3 to 8 around them


@pytest.mark.parametrize(
    ("role", "change", "message"),
    [
        ("guard", lambda model: model.lm_head.weight.zero_(), r"models/seed0/guard: the reward of all 8 built-in exchanges is 0"),
        ("guard", damage, r"models/seed0/guard: the reward of the built-in exchange .* is nan"),
        ("policy", damage, r"models/seed0/policy: logits of a short prompt are not finite at token 0"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused_before_a_search(layout: Layout, role: str, change: Any, message: str) -> None:
    own(layout, role, change)
    config = make_config(**experiment({"method": "best_of_n", "budgets": [1]}))
    with pytest.raises(ModelError, match=message):
        run_all(config, layout)
    assert not list(layout.data.rglob(".blocks/*/*.parquet"))


def test_a_judges_reward_that_is_not_finite_names_prompt_and_model(layout: Layout) -> None:
    def odd(model: Any) -> None:
        model.model.embed_tokens.weight[11:] = torch.nan

    own(layout, "guard", odd)
    config = make_config(**experiment({"method": "no_defense", "budgets": [0]}))
    run_all(config, layout)
    with pytest.raises(JudgeError, match=r"guard/tiny.parquet: column score: nan for \d+ outputs, first no_defense"):
        judged(config, layout)


def test_an_infinite_reward_in_a_table_is_refused_on_gathering(layout: Layout) -> None:
    config = make_config(**experiment({"method": "no_defense", "budgets": [0]}))
    run_all(config, layout)
    path = layout.search_run(0, "tiny", "no_defense-default", 0)
    table = records.read_table(path, records.SEARCH)
    records.write_table(path, table.assign(flops_policy=np.inf), records.SEARCH)
    with pytest.raises(RecordError, match="column flops_policy: not a number at prompt 0"):
        gathering.gather(jobs.gather(config, 0, "tiny"), layout)
