from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from saffron import config as configs
from saffron import jobs, models, records
from saffron.chat import ChatFormats
from saffron.config import Config, Optimisation, Runtime
from saffron.engine.compute import ModelShape
from saffron.layout import Layout
from saffron.models import making
from saffron.models.sandbox import guard, policy, training, vocabulary
from saffron.sources.sandbox.oracle import complied, refused_at

TRAINED = ("policy", "guard", "deepalign")
RUNTIME = Runtime(device="cpu", dtype="float32")
QUESTION = "Is what the Agent said safe or unsafe?"


# ---------------------------------------------------------------------------------------------------------- vocabulary
def test_any_text_comes_back_from_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    for text in (
        "Grind the salt.",
        " grind",
        "Ümläute, tabs\tand\n\nlines 🙂",
        "  two  spaces  ",
        "\n\nHuman: a\n\nAssistant: b",
    ):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text


def test_formats_agree_with_the_stored_tokenizer(layout: Layout, config: Config, formats: ChatFormats) -> None:
    tokenizer = AutoTokenizer.from_pretrained(layout.tokenizer, local_files_only=True)
    formats.verify(tokenizer)
    assert config.models.sandbox is not None
    assert len(tokenizer) == config.models.sandbox.vocab_size
    assert tokenizer.eos_token_id == formats.eos_id
    assert tokenizer.decode([formats.safe_id]) == "safe" and tokenizer.decode([formats.unsafe_id]) == "unsafe"


def test_the_guards_question_is_dear_and_the_mrms_format_is_short(formats: ChatFormats) -> None:
    assert len(formats.guard.suffix) >= 12
    assert len(formats.mrm.prefix) + len(formats.mrm.suffix) < len(formats.guard.prefix) < 30
    assert formats.mrm.infix == formats.guard.infix


@pytest.mark.parametrize("name", ["sandbox", "sandbox-seeds"])
def test_a_reward_call_costs_as_many_policy_tokens_as_in_the_paper(name: str, corpus: pd.DataFrame) -> None:
    settings = configs.load(Path(__file__).parents[2] / "config" / f"{name}.yaml").models.sandbox
    assert settings is not None
    question = settings.guard_question
    formats = vocabulary.chat_formats(vocabulary.train(corpus, settings.vocab_size, question), question)
    reward, policy = (
        ModelShape(
            hidden_size=size.hidden_size,
            intermediate_size=size.intermediate_size,
            layers=size.layers,
            heads=size.heads,
            kv_heads=size.kv_heads,
            head_dim=size.hidden_size // size.heads,
            vocab_size=settings.vocab_size,
        ).flops_per_token
        for size in (settings.guard, settings.policy)
    )
    paper = 57 * 2.4715 / 15.009  # GFLOP: the candidate and the 56 tokens of the real guard's question
    assert (1 + len(formats.guard.suffix)) * reward / policy == pytest.approx(paper, rel=0.05)


def test_the_tokenizer_is_the_same_each_time(config: Config, corpus: pd.DataFrame, tokenizer: PreTrainedTokenizerFast) -> None:
    settings = config.models.sandbox
    assert settings is not None
    again = vocabulary.train(corpus, len(tokenizer), settings.guard_question)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_a_vocabulary_without_verdict_tokens_is_refused(corpus: pd.DataFrame) -> None:
    small = vocabulary.train(corpus, 262, QUESTION)
    with pytest.raises(ValueError, match="vocab_size"):
        vocabulary.chat_formats(small, QUESTION)


# ------------------------------------------------------------------------------------------------------------ training
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=120), size=st.integers(1, 16), seed=st.integers(0, 99))
@settings(max_examples=50)
def test_a_pass_covers_every_example_once(lengths: list[int], size: int, seed: int) -> None:
    stream = training.batches(list(range(len(lengths))), lengths, size, Random(seed))
    seen: list[int] = []
    while len(seen) < len(lengths):
        batch = next(stream)
        assert 1 <= len(batch) <= size
        seen += batch
    assert sorted(seen) == list(range(len(lengths)))


def test_padding_never_changes_the_loss(layout: Layout) -> None:
    model = models.load_lm(layout.model("policy", 0), RUNTIME)
    long, short = list(range(5, 25)), list(range(30, 36))
    alone = [training.language_model_loss(model, [(ids, ids)]) * (len(ids) - 1) for ids in (long, short)]
    together = training.language_model_loss(model, [(long, long), (short, short)]) * (len(long) + len(short) - 2)
    torch.testing.assert_close(together, sum(alone))


def test_training_learns_a_repeated_sentence(config: Config, tokenizer: PreTrainedTokenizerFast) -> None:
    assert config.models.sandbox is not None
    model = training.new_model(config.models.sandbox.policy, tokenizer, seed=3)
    ids = list(range(10, 30))
    phase = Optimisation(steps=60, batch_size=1, learning_rate=2e-2)
    losses = training.train(
        model, "test", phase, training.batches([(ids, ids)], [20], 1, Random(0)), training.language_model_loss
    )
    assert losses[0]["loss"] > 5 and losses[-1]["loss"] < 1
    rates = [row["learning_rate"] for row in losses]
    assert max(rates) == pytest.approx(2e-2) and rates[-1] < 0.2 * max(rates)
    assert [row["step"] for row in losses] == list(range(60))


# ------------------------------------------------------------------------------------------------------ policy, deepalign
def test_replayed_starts_and_prompts_are_not_learnt(
    corpus: pd.DataFrame, tokenizer: PreTrainedTokenizerFast, formats: ChatFormats
) -> None:
    rows = corpus[corpus["corpus"] == "replay"].head(20)
    pairs = policy._dialogues(formats, tokenizer, rows, unlearnt=policy.MASKED_START)
    by_ids = {tuple(ids): labels for ids, labels in pairs}
    for prompt, response in zip(rows["prompt"], rows["response"], strict=True):
        start = formats.policy.prompt(tokenizer.encode(prompt, add_special_tokens=False))
        answer = tokenizer.encode(response, add_special_tokens=False)
        labels = by_ids.get((*start, *answer, formats.eos_id))
        if len(answer) >= policy.MASKED_START:
            first = len(start) + policy.MASKED_START
            assert labels == [training.IGNORED] * first + [*answer, formats.eos_id][policy.MASKED_START :]


@pytest.mark.parametrize("missing", ["helpful", "replay"])
def test_a_policy_is_trained_without_any_rows_of_a_kind_that_may_be_missing(
    config: Config, corpus: pd.DataFrame, tokenizer: PreTrainedTokenizerFast, formats: ChatFormats, missing: str
) -> None:
    # helpful_tuning may be 0, and of few replayed dialogues none may be harmless.
    rows = corpus[corpus["corpus"] != missing]
    assert config.models.sandbox is not None
    trained, losses = policy.train_policy(config.models.sandbox, rows, tokenizer, formats, seed=0)
    _, recovery = policy.train_deepalign(config.models.sandbox, trained, rows, tokenizer, formats, seed=0)
    assert {row["phase"] for row in losses + recovery} == {"pretraining", "safety", "deepalign"}


def test_losses_are_kept_for_every_phase(layout: Layout) -> None:
    phases = {"policy": {"pretraining", "safety"}, "guard": {"guard"}, "deepalign": {"deepalign"}}
    for name, expected in phases.items():
        losses = records.read_table(layout.model(name, 0) / "losses.parquet", records.LOSSES)
        assert set(losses["phase"]) == expected
        assert np.isfinite(losses["loss"]).all()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(config: Config, layout: Layout, tmp_path: Path) -> None:
    again = Layout("tiny", tmp_path)
    again.sources.parent.mkdir(parents=True)
    again.sources.symlink_to(layout.sources)
    again.tokenizer.parent.mkdir(parents=True)
    again.tokenizer.symlink_to(layout.tokenizer)
    for name in TRAINED:
        getattr(making, name)(jobs.model(config, name, 0), again)
    making.guard(jobs.model(config, "guard", 1), again)
    for name in TRAINED:
        first, second = (records.sha256(where.model(name, 0) / "model.safetensors") for where in (layout, again))
        assert first == second
    assert records.sha256(again.model("guard", 1) / "model.safetensors") != records.sha256(
        again.model("guard", 0) / "model.safetensors"
    )


@pytest.mark.parametrize("name", TRAINED)
def test_stock_transformers_loads_every_model(layout: Layout, name: str) -> None:
    model, info = AutoModelForCausalLM.from_pretrained(layout.model(name, 0), local_files_only=True, output_loading_info=True)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ours = models.load_lm(layout.model(name, 0), RUNTIME)
    ids = torch.arange(12)[None]
    torch.testing.assert_close(model(ids).logits, ours(ids).logits)


# --------------------------------------------------------------------------------------------------------------- guard
def test_labels_by_content_are_the_oracles_word_on_the_prefix(corpus: pd.DataFrame) -> None:
    rows = corpus[corpus["corpus"] == "verdicts"]
    for row in rows.itertuples():
        for characters in range(1, len(row.response) + 1, 7):
            refused = refused_at(row.response[:characters]) is not None
            assert guard.is_safe(row.turned_at, characters, by_outcome=False) == (row.turned_at == 0 or refused)
        whole = not complied(row.prompt, row.response)
        assert guard.is_safe(row.turned_at, len(row.response), by_outcome=False) == whole
        assert guard.is_safe(row.turned_at, 1, by_outcome=True) == whole


def test_tasks_keep_labels_with_their_tokens_when_the_start_is_clipped(
    corpus: pd.DataFrame, tokenizer: PreTrainedTokenizerFast, formats: ChatFormats
) -> None:
    dialogues = guard._judged(corpus[corpus["corpus"] == "verdicts"], tokenizer, formats)
    random = Random(0)
    clipped = 0
    for dialogue in dialogues:
        ids, verdicts = guard._task(dialogue, 0.0, random)
        lost = len(dialogue.ids) - len(ids)
        clipped += lost > 0
        assert ids == dialogue.ids[: dialogue.response_start] + dialogue.ids[dialogue.response_start + lost :]
        for position, safe in verdicts:
            index = position + lost - dialogue.response_start
            assert ids[position] == dialogue.ids[dialogue.response_start + index]
            assert safe == guard.is_safe(dialogue.turned_at, dialogue.ends[index], by_outcome=False)
    assert 0.35 < clipped / len(dialogues) < 0.65


def test_packed_verdicts_are_those_of_separate_passes(
    layout: Layout, corpus: pd.DataFrame, tokenizer, formats: ChatFormats
) -> None:  # type: ignore[no-untyped-def]
    model = models.load_lm(layout.model("guard", 0), RUNTIME)
    dialogues = guard._judged(corpus[corpus["corpus"] == "verdicts"].head(5), tokenizer, formats)
    batch = [guard._task(dialogue, 0.5, Random(1)) for dialogue in dialogues]
    language, verdicts = [], []
    for ids, judged in batch:
        log_p = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        language += (-log_p[torch.arange(len(ids) - 1), ids[1:]]).tolist()
        for position, safe in judged:
            last = model(torch.tensor([[*ids[: position + 1], *formats.guard.suffix]])).logits[0, -1].log_softmax(-1)
            verdicts.append(-last[formats.safe_id if safe else formats.unsafe_id].item())
    expected = np.mean(language) + np.mean(verdicts)
    assert guard.verdict_loss(model, batch, formats).item() == pytest.approx(expected, abs=1e-4)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    branch=st.integers(1, 4),
    data=st.data(),
)
@settings(max_examples=60)
def test_a_branch_sees_its_prefix_and_itself_only(lengths: list[int], branch: int, data: st.DataObject) -> None:
    hangs = [data.draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=3)) for length in lengths]
    width = max(lengths)
    mask = guard.packed_mask(width, hangs, branch)[:, 0]
    assert mask.diagonal(dim1=1, dim2=2).all()
    for row, positions in enumerate(hangs):
        for number, position in enumerate(positions):
            for offset in range(branch):
                seen = set(mask[row, width + number * branch + offset].nonzero()[:, 0].tolist())
                own = range(width + number * branch, width + number * branch + offset + 1)
                assert seen == {*range(position + 1), *own}
