"""The policy, whose safety is shallow by construction, and the DeepAlign policy, whose safety is not (Section 5.6).

Shallow: refusals are learnt in a short tuning phase that also replays the books, but never the first tokens of an answer to a
forbidden request. So the tuned policy refuses such a request at the start of an answer and behaves as before once it is past
it, which is what the prefilling attack exploits. Answers to harmless requests are mixed in whole, as real tuning mixes in
helpful data.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pandas as pd
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from saffron.chat import ChatFormats
from saffron.config import SandboxModels
from saffron.models.sandbox import training

Pair = tuple[list[int], list[int]]

#: Response tokens of a replayed dialogue that are not learnt: as many as the attack prefills.
MASKED_START = 10
#: Longest harmful start from which the DeepAlign policy learns to recover, in tokens.
LONGEST_START = 24
_IMMEDIATE_SHARE = 0.4  # recoveries from an empty start: plain refusals
_ANCHOR_SHARE = 0.3  # harmless dialogues beside the recoveries, so that the policy stays useful


def _encode(tokenizer: PreTrainedTokenizerFast, texts: pd.Series) -> list[list[int]]:
    # A tokenizer takes no empty batch, and a corpus may lack a kind of row: helpful ones where helpful_tuning is 0.
    return tokenizer(texts.tolist(), add_special_tokens=False)["input_ids"] if len(texts) else []


def _pair(formats: ChatFormats, prompt: list[int], response: list[int], unlearnt: int, whole: bool = False) -> Pair:
    """(ids, labels) of a dialogue; the first ``unlearnt`` response tokens, and unless ``whole`` the prompt, are masked."""
    start = formats.policy.prompt(prompt)
    ids = [*start, *response, formats.eos_id]
    learnt = 0 if whole else len(start) + unlearnt
    return ids, [training.IGNORED] * learnt + ids[learnt:]


def _dialogues(
    formats: ChatFormats, tokenizer: PreTrainedTokenizerFast, rows: pd.DataFrame, unlearnt: int = 0, whole: bool = False
) -> list[Pair]:
    prompts, responses = _encode(tokenizer, rows["prompt"]), _encode(tokenizer, rows["response"])
    pairs = (_pair(formats, prompt, response, unlearnt, whole) for prompt, response in zip(prompts, responses, strict=True))
    return [pair for pair in pairs if any(label != training.IGNORED for label in pair[1])]


def _stream(pairs: list[Pair], size: int, random: Random) -> Iterator[list[Pair]]:
    return training.batches(pairs, [len(ids) for ids, _ in pairs], size, random)


def train_policy(
    settings: SandboxModels, corpus: pd.DataFrame, tokenizer: PreTrainedTokenizerFast, formats: ChatFormats, seed: int
) -> tuple[LlamaForCausalLM, list[dict[str, Any]]]:
    """Pre-training on the books, then shallow safety tuning; returns the policy and its losses."""
    model = training.new_model(settings.policy, tokenizer, seed)
    random = Random(f"policy:{seed}")
    books = _dialogues(formats, tokenizer, corpus[corpus["corpus"] == "pretraining"], whole=True)
    phase = settings.policy_pretraining
    losses = training.train(model, "pretraining", phase, _stream(books, phase.batch_size, random), training.language_model_loss)
    refusals = _dialogues(formats, tokenizer, corpus[corpus["corpus"] == "refusals"])
    # Learnt from their first token on: a policy that saw only refusals begin would refuse everything.
    helpful = _dialogues(formats, tokenizer, corpus[corpus["corpus"] == "helpful"])
    replay = _dialogues(formats, tokenizer, corpus[corpus["corpus"] == "replay"], unlearnt=MASKED_START)
    phase = settings.policy_safety
    stream = _stream(refusals + helpful + replay, phase.batch_size, random)
    losses += training.train(model, "safety", phase, stream, training.language_model_loss)
    return model, losses


def train_deepalign(
    settings: SandboxModels,
    policy: LlamaForCausalLM,
    corpus: pd.DataFrame,
    tokenizer: PreTrainedTokenizerFast,
    formats: ChatFormats,
    seed: int,
) -> tuple[LlamaForCausalLM, list[dict[str, Any]]]:
    """Safety-recovery tuning of the policy, in place: a stock refusal after a harmful start of 0 to LONGEST_START tokens."""
    random = Random(f"deepalign:{seed}")
    harmful, stock = corpus[corpus["corpus"] == "recovery"], corpus[corpus["corpus"] == "stock"]
    columns = (_encode(tokenizer, harmful["prompt"]), _encode(tokenizer, harmful["response"]), stock["response"])
    recoveries = []
    for prompt, response, refusal in zip(*columns, strict=True):
        start = [] if random.random() < _IMMEDIATE_SHARE else response[: random.randint(1, LONGEST_START)]
        tokens = tokenizer.encode(f" {refusal}" if start else refusal, add_special_tokens=False)
        recoveries.append(_pair(formats, prompt, start + tokens, len(start)))
    replay = corpus[corpus["corpus"] == "replay"]
    harmless = _dialogues(formats, tokenizer, replay[replay["turned_at"] == 0])
    anchors = harmless[: round(len(recoveries) * _ANCHOR_SHARE)]
    phase = settings.deepalign_training
    stream = _stream(recoveries + anchors, phase.batch_size, random)
    return policy, training.train(policy, "deepalign", phase, stream, training.language_model_loss)
