"""docs/small-models.md, done: a policy of either family, its own first layers as guard and judge, through every stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from replica import other_family, pipeline
from saffron import config as configs
from saffron import jobs, models, records, workflow
from saffron.config import Config
from saffron.layout import Layout
from saffron.models import making
from saffron.runs import plan

SHORT = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3}


def settings_of(folder: Path) -> Config:
    """The other family's config with everything of docs/small-models.md, on conversations that never decline."""
    values: dict[str, Any] = configs.as_dict(configs.load(other_family.write(folder)))
    guard = {"from": "truncated", "layers": 1, "labels": "preference", "training": SHORT}
    values["models"]["hub"] |= {"guard": guard, "other_guard": guard, "policy_safety": SHORT}
    values["mrm"] |= {"unembedding_scale": 0.1, "centred_verdicts": True, "lora_rank": 8}
    return configs.parse(values, "test")


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_every_stage_runs_when_the_policy_alone_is_changed(family: str, tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    if family == "llama":
        vocabulary = len(other_family.build_tokenizer())
        with torch.random.fork_rng():
            torch.manual_seed(1)
            llama = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **other_family.SIZES))
        llama.save_pretrained(tmp_path / "policy")
    layout = Layout(settings.name, tmp_path / "out")
    pipeline.run(settings, layout)
    making.other_guard(jobs.model(settings, "other_guard", 0), layout)
    policy, guard = (models.load_lm(layout.model(which, 0), settings.runtime) for which in ("policy", "guard"))
    assert policy.config.model_type == guard.config.model_type == family
    assert (policy.config.num_hidden_layers, guard.config.num_hidden_layers) == (2, 1)
    mrm, _ = models.load_mrm(layout.mrm(0), settings.runtime)
    before, after = (model.get_output_embeddings().weight for model in (guard, mrm))
    torch.testing.assert_close(after[:200], 0.1 * before[:200])  # the verdict words come later
    analysis = records.read_json(layout.analysis / "analysis.json")
    assert analysis["persistence"]["n_points"]["value"] == analysis["mrm"]["n_points"]["value"]
    assert set(records.read_table(layout.search(0, "scaling"), records.SEARCH)["method"]) >= {"saffron", "best_of_n"}
    assert next(row for row in plan.rows(settings, layout) if row.stage == "models").flops > 0


def test_what_is_trained_needs_conversations_and_what_is_fetched_does_not(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    plain = configs.load(tmp_path / "mine.yaml")
    layout = Layout(settings.name, tmp_path)
    for which in ("policy", "guard", "other_guard"):
        assert workflow.trained(settings, which) and workflow.learns_from(settings, layout, which) == [layout.conversations]
        assert not workflow.trained(plain, which) and workflow.learns_from(plain, layout, which) == []
    sandbox = configs.load(Path(__file__).parents[2] / "config/smoke.yaml")
    assert workflow.learns_from(sandbox, layout, "guard") == [layout.corpus] and workflow.trained(sandbox, "judge")
    assert workflow.needs(sandbox) < workflow.needs(plain)
