"""A guard of the policy's first layers, and the policy's refusal tuning, on tiny random models of two families."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from replica import other_family
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from saffron import config as configs
from saffron import jobs, models, records
from saffron.chat import ChatFormats
from saffron.config import ChatTexts, Config, ConfigError, PolicySafety, Runtime, TruncatedGuard
from saffron.layout import Layout
from saffron.models import making, truncated, tuning
from saffron.models.formats import of_texts
from saffron.models.sandbox.guard import Verdict
from saffron.models.sandbox.policy import MASKED_START
from saffron.models.sandbox.training import IGNORED
from saffron.models.truncated import Answer
from saffron.refusals import declines
from saffron.sources.conversations import TokenisedResponse

RUNTIME = Runtime(device="cpu", dtype="float32")
GUARD = {"from": "truncated", "layers": 1, "max_tokens": 64, "training": {"steps": 40, "batch_size": 8, "learning_rate": 0.005}}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return other_family.build_tokenizer()


@pytest.fixture(scope="module")
def formats(tokenizer: PreTrainedTokenizerFast) -> ChatFormats:
    return of_texts(ChatTexts.model_validate(other_family.CHAT_FORMATS), tokenizer, tokenizer)


def policy_of(family: str, vocabulary: int) -> Any:
    wide = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 3}
    sizes = {**other_family.SIZES, **wide, "initializer_range": 0.1, "vocab_size": vocabulary}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if family == "llama":
            return LlamaForCausalLM(LlamaConfig(tie_word_embeddings=True, **sizes)).eval()
        return Qwen2ForCausalLM(Qwen2Config(tie_word_embeddings=False, **sizes)).eval()


@pytest.fixture(params=["llama", "qwen2"])
def policy(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> Any:
    return policy_of(request.param, len(tokenizer))


def conversations(rows: int = 24) -> pd.DataFrame:
    """Preferred answers decline in every second row; the others talk of soup."""
    table = []
    for row in range(rows):
        question, soup = (
            f"\n\nHuman: how do I paint fence {row}?",
            f"first mix the flour with water and boil soup number {row} in the kettle",
        )
        chosen = (
            f"I can't help with that, sorry. No {row}" if row % 2 else f"warm the oven and butter the brown crust {row} twice"
        )
        sides = {"chosen": chosen, "rejected": soup}
        both = {side: f"{question}\n\nAssistant: {answer}" for side, answer in sides.items()}
        table.append({"source_row": row, "split": "test" if row % 4 > 1 else "train", "subset": "made", **both})
    return pd.DataFrame(table)


# ---------------------------------------------------------------------------------------------------------------- cut
def test_the_guard_is_the_policys_first_layers_norm_and_head(policy: Any) -> None:
    guard = truncated.truncate(policy, 2)
    ids = torch.arange(3, 12)[None]
    hidden = policy.model(input_ids=ids, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(guard(ids).logits, policy.lm_head(policy.model.norm(hidden)))
    assert guard.config.num_hidden_layers == len(guard.model.layers) == 2 and policy.config.num_hidden_layers == 3
    with torch.no_grad():
        guard.model.layers[0].mlp.up_proj.weight.zero_()
    assert policy.model.layers[0].mlp.up_proj.weight.abs().sum() > 0
    with pytest.raises(truncated.TrainingError, match="the policy has 3 layers, fewer than 4"):
        truncated.truncate(policy, 4)


def test_what_is_frozen_is_embeddings_head_and_the_first_layers(policy: Any) -> None:
    truncated.freeze(policy, 1)
    learnt = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[1] for name in learnt} == {"layers", "norm"}
    assert {name.split(".")[2] for name in learnt if "layers" in name} == {"1", "2"}


def test_verdicts_of_a_packed_batch_are_those_of_each_prefix_alone(policy: Any, formats: ChatFormats) -> None:
    batch = [
        ([*formats.guard.prompt([40, 41]), 50, 51, 52], [Verdict(-3, True), Verdict(-1, False)]),
        ([*formats.guard.prompt([42]), 53, 54], [Verdict(-2, False)]),
    ]
    batch = [(ids, [Verdict(len(ids) + at, safe) for at, safe in verdicts]) for ids, verdicts in batch]
    losses = []
    for ids, verdicts in batch:
        for at, safe in verdicts:
            logits = policy(torch.tensor([[*ids[: at + 1], *formats.guard.suffix]])).logits[0, -1]
            losses.append(-logits.log_softmax(-1)[formats.safe_id if safe else formats.unsafe_id])
    torch.testing.assert_close(truncated.verdict_loss(policy, batch, formats), torch.stack(losses).mean())


# ------------------------------------------------------------------------------------------------------------ training
@pytest.mark.parametrize(("family", "labels"), [("llama", "refusals"), ("qwen2", "preference")])
def test_a_guard_learns_its_labels_and_the_seed_gives_the_same_weights(
    tokenizer: PreTrainedTokenizerFast, formats: ChatFormats, family: str, labels: str
) -> None:
    policy = policy_of(family, len(tokenizer))
    settings = TruncatedGuard.model_validate({**GUARD, "layers": 2, "labels": labels})
    arguments = (settings, conversations(), tokenizer, formats, 0, RUNTIME)
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    guard, losses, found = truncated.train_guard(policy, *arguments)
    assert all(torch.equal(weight, before[name]) for name, weight in policy.state_dict().items())
    assert found["labels"] == labels and found["responses"] == 24
    assert found["refusals"]["share"] == 0.25 and found["preference"]["share"] == 0.5
    assert found[labels]["auc"] > 0.9 and found[labels]["pair_accuracy"] > 0.9
    assert found["refusals"]["pairs"] == 6 and found["preference"]["pairs"] == 12
    assert [row["phase"] for row in losses] == ["guard"] * 40
    assert sum(row["loss"] for row in losses[-5:]) < 0.5 * sum(row["loss"] for row in losses[:5])
    embeddings = guard.get_input_embeddings().weight
    assert torch.equal(embeddings, policy.get_input_embeddings().weight)
    again, _, _ = truncated.train_guard(policy, *arguments)
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in guard.state_dict().items())


def test_labels_that_are_all_one_are_refused(tokenizer: PreTrainedTokenizerFast, formats: ChatFormats) -> None:
    table = conversations()
    same = table.assign(chosen=table["rejected"].str.replace("first", "then"))
    settings = TruncatedGuard.model_validate(GUARD)
    with pytest.raises(truncated.TrainingError, match="all responses of the train split have one label"):
        truncated.train_guard(policy_of("llama", len(tokenizer)), settings, same, tokenizer, formats, 0, RUNTIME)


def test_a_response_is_labelled_by_what_is_left_of_it(tokenizer: PreTrainedTokenizerFast, formats: ChatFormats) -> None:
    said = [*tokenizer.encode("I can't help with that.", add_special_tokens=False), formats.eos_id]
    answer = Answer(0, False, TokenisedResponse([5], said))
    by_refusal, by_preference = (truncated.labelling(kind, tokenizer, formats.eos_id) for kind in ("refusals", "preference"))
    assert by_refusal(answer, 0) and not by_refusal(answer, len(said) - 3)
    assert not by_preference(answer, 0)


def test_agreement_by_hand() -> None:
    assert truncated.auc(np.array([1.0, 2.0, 3.0, 3.0]), np.array([False, True, False, True])) == (0.5 * 1 + 1 + 1 + 0) / 4
    assert truncated.auc(np.array([1.0, 2.0]), np.array([True, True])) is None


# -------------------------------------------------------------------------------------------------------------- tuning
def test_refusals_are_refusals() -> None:
    assert [text for text in tuning.REFUSALS if not declines(text)] == []
    assert len(set(tuning.REFUSALS)) == len(tuning.REFUSALS)


def test_refusals_are_learnt_whole_and_replayed_answers_without_their_start(
    tokenizer: PreTrainedTokenizerFast, formats: ChatFormats
) -> None:
    table = conversations()
    table.loc[0, "rejected"] = "\n\nHuman: how do I paint fence 0?\n\nAssistant: well, I won't help with that, as it is not kind"
    refusals, replayed = tuning.examples(table, tokenizer, formats, 128, Random(0))
    train = table[table["split"] == "train"]
    assert len(refusals) == len(train) and len(replayed) == len(train) - 1  # an answer that declines teaches no way past it
    for ids, labels in refusals:
        said = [label for label in labels if label != IGNORED]
        assert said[-1] == formats.eos_id and tokenizer.decode(said[:-1]) in tuning.REFUSALS
        assert ids[len(ids) - len(said) :] == said
    for ids, labels in replayed:
        start = next(index for index, label in enumerate(labels) if label != IGNORED)
        assert labels[start:] == ids[start:]
        assert "first mix" in tokenizer.decode(ids[start - MASKED_START : start + 12])


def test_a_tuned_policy_begins_with_a_refusal_and_goes_on_past_it(
    tokenizer: PreTrainedTokenizerFast, formats: ChatFormats
) -> None:
    policy = policy_of("qwen2", len(tokenizer))
    settings = PolicySafety(steps=60, batch_size=12, learning_rate=0.01)
    losses, declining = tuning.tune_policy(policy, settings, conversations(), tokenizer, formats, 0, RUNTIME)
    assert len(losses) == 60 and losses[0]["phase"] == "safety"
    before, after = declining["before"], declining["after"]
    assert before["requests"] == after["requests"] == sum(conversations()["split"] == "test") > 0
    assert before["unattacked"] == 0 and after["unattacked"] > 0.5 and after["attacked"] == 0
    prompt = formats.policy.prompt(tokenizer.encode("how do I paint fence 3?", add_special_tokens=False))
    firsts = {tokenizer.encode(text, add_special_tokens=False)[0] for text in tuning.REFUSALS}
    assert int(policy(torch.tensor([prompt])).logits[0, -1].argmax()) in firsts
    soup = tokenizer.encode("first mix the flour with water and boil", add_special_tokens=False)
    assert len(soup) > MASKED_START
    cut = soup[: MASKED_START + 1]
    goes_on = int(policy(torch.tensor([[*prompt, *cut]])).logits[0, -1].argmax())
    assert goes_on == soup[MASKED_START + 1]


# ------------------------------------------------------------------------------------------------------------ the stage
@pytest.fixture
def run(tmp_path: Path) -> tuple[Config, Layout]:
    """Another family's config whose guard and judge are its policy's first layer; its policy has two."""
    values = configs.as_dict(configs.load(other_family.write(tmp_path)))
    short = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3}
    hub = values["models"]["hub"]
    hub["guard"] = {**GUARD, "training": short}
    hub["other_guard"] = {**GUARD, "labels": "preference", "training": short}
    hub["policy_safety"] = {**short, "freeze": 1}
    settings = configs.parse(values, "test")
    layout = Layout("mine", tmp_path / "out")
    records.write_table(layout.conversations, conversations(), records.CONVERSATIONS)
    return settings, layout


def test_the_stage_writes_a_tuned_policy_and_a_guard_and_a_judge_of_the_untuned_one(run: tuple[Config, Layout]) -> None:
    settings, layout = run
    making.tokenizer(jobs.model(settings, "tokenizer"), layout)
    for which in ("policy", "guard", "other_guard"):
        getattr(making, which)(jobs.model(settings, which, 0), layout)
        assert records.read_table(layout.model(which, 0) / "losses.parquet", records.LOSSES)["step"].tolist() == [0, 1]
    assert settings.models.hub is not None
    untuned = models.load_lm(str(settings.models.hub.policy.path), RUNTIME)  # type: ignore[union-attr]
    tuned, guard = (models.load_lm(layout.model(which, 0), RUNTIME) for which in ("policy", "guard"))
    assert guard.config.num_hidden_layers == 1 and tuned.config.num_hidden_layers == 2
    name = "model.layers.1.mlp.up_proj.weight"
    assert not torch.equal(tuned.state_dict()[name], untuned.state_dict()[name])
    assert torch.equal(guard.get_input_embeddings().weight, untuned.get_input_embeddings().weight)
    assert records.read_json(layout.held_out("guard", 0))["labels"] == "refusals"
    assert records.read_json(layout.held_out("policy", 0)).keys() == {"before", "after"}
    assert records.read_json(layout.held_out("other_guard", 0))["labels"] == "preference"


def test_a_guard_reads_the_policys_name_and_not_its_tuning(run: tuple[Config, Layout]) -> None:
    settings, _ = run
    assert settings.models.hub is not None

    def changed(**keys: Any) -> Config:
        hub = settings.models.hub.model_copy(update=keys)  # type: ignore[union-attr]
        return settings.model_copy(update={"models": settings.models.model_copy(update={"hub": hub})})

    untuned = changed(policy_safety=None)
    other = changed(policy=settings.models.hub.policy.model_copy(update={"id": "someone/else"}))
    for which, by_tuning, by_name in (("policy", True, True), ("guard", False, True), ("other_guard", False, True)):
        line = jobs.model(settings, which, 0).line
        assert (jobs.model(untuned, which, 0).line != line) is by_tuning
        assert (jobs.model(other, which, 0).line != line) is by_name


def test_too_many_layers_name_the_key(run: tuple[Config, Layout]) -> None:
    settings, layout = run
    making.tokenizer(jobs.model(settings, "tokenizer"), layout)
    values = configs.as_dict(settings)
    values["models"]["hub"]["guard"]["layers"] = 9
    with pytest.raises(ConfigError, match=r"models\.hub\.guard: the policy has 2 layers, fewer than 9"):
        making.guard(jobs.model(configs.parse(values, "test"), "guard", 0), layout)
