"""The guard: a language model of dialogues that gives a verdict after any prefix of a response.

One packed sequence holds the dialogue and, hung under some of its response positions, copies of the question; each copy
sees its prefix and itself only, and the verdict is the token after it. Half of the responses are clipped at their start,
because the judge does not see prefilled tokens and what it reads begins in mid-sentence.
"""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from saffron.chat import ChatFormats
from saffron.config import SandboxModels
from saffron.models.sandbox import training

#: Longest start that is clipped, in tokens.
LONGEST_CLIP = 16
_CLIPPED_SHARE = 0.5
_VERDICTS_PER_DIALOGUE = 6


class Judged(NamedTuple):
    """A dialogue in the guard's format, and where the truth about it changes."""

    ids: list[int]  # guard.prompt(prompt) + response + EOS
    response_start: int
    ends: list[int]  # characters of the response up to and with each response token, EOS included
    turned_at: int  # as in records.CORPUS


class Verdict(NamedTuple):
    """What the guard should say after the prefix that ends at ``position``."""

    position: int
    safe: bool


def is_safe(turned_at: int, characters: int, by_outcome: bool) -> bool:
    """The label of a response prefix: by its content so far (what the oracle says of it), or by how the answer ends."""
    if turned_at == 0:
        return True
    if turned_at < 0:
        return False
    return by_outcome or characters >= turned_at


def _judged(corpus: pd.DataFrame, tokenizer: PreTrainedTokenizerFast, formats: ChatFormats) -> list[Judged]:
    prompts = tokenizer(corpus["prompt"].tolist(), add_special_tokens=False)["input_ids"]
    responses = tokenizer(corpus["response"].tolist(), add_special_tokens=False, return_offsets_mapping=True)
    dialogues = []
    for prompt, response, offsets, turned_at in zip(
        prompts, responses["input_ids"], responses["offset_mapping"], corpus["turned_at"], strict=True
    ):
        start = formats.guard.prompt(prompt)
        ends = [end for _, end in offsets]
        dialogues.append(Judged([*start, *response, formats.eos_id], len(start), [*ends, ends[-1]], int(turned_at)))
    return dialogues


def _task(dialogue: Judged, outcome_share: float, random: Random) -> tuple[list[int], list[Verdict]]:
    """Ids with the start of the response clipped or not, and verdicts at some of its positions."""
    ids, start, ends, turned_at = dialogue
    clip = random.randint(1, min(LONGEST_CLIP, len(ends) - 1)) if random.random() < _CLIPPED_SHARE else 0
    left = range(clip, len(ends))
    chosen = random.sample(left, min(_VERDICTS_PER_DIALOGUE, len(left)))
    verdicts = [
        Verdict(start + index - clip, is_safe(turned_at, ends[index], random.random() < outcome_share))
        for index in sorted(chosen)
    ]
    return ids[:start] + ids[start + clip :], verdicts


def packed_mask(width: int, hangs: list[list[int]], branch: int) -> Tensor:
    """Who sees whom when branches are packed behind their dialogues.

    Args:
        width: tokens of the longest dialogue; branches start there.
        hangs: for each dialogue, the positions its branches hang under.
        branch: tokens of a branch.

    Returns:
        BoolTensor[batch, 1, width + most·branch, same]: row i sees column j.
    """
    most = max(map(len, hangs))
    size = width + most * branch
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    inner = torch.ones(branch, branch, dtype=torch.bool).tril()
    mask = torch.eye(size, dtype=torch.bool).repeat(len(hangs), 1, 1)
    mask[:, :width, :width] = causal
    for row, positions in enumerate(hangs):
        for number, position in enumerate(positions):
            first = width + number * branch
            mask[row, first : first + branch, : position + 1] = True
            mask[row, first : first + branch, first : first + branch] = inner
    return mask[:, None]


class Hung(NamedTuple):
    """Dialogues and, packed behind them, a copy of the suffix under each position that is judged."""

    ids: Tensor  # int64 [batch, width + most·branch]
    positions: Tensor  # depths of the same
    visible: Tensor  # packed_mask
    width: int  # tokens of the longest dialogue
    rows: list[int]  # of each verdict: its dialogue
    ends: list[int]  # of each verdict: the last token of its suffix


def hang(batch: list[tuple[list[int], list[Verdict]]], suffix: tuple[int, ...]) -> Hung:
    """Pack a batch of dialogues with the suffixes of their verdicts, so that one forward pass reads them all."""
    width, branch = max(len(ids) for ids, _ in batch), len(suffix)
    hangs = [[verdict.position for verdict in verdicts] for _, verdicts in batch]
    most = max(map(len, hangs))
    main = training.padded([ids for ids, _ in batch], 0)
    ids = torch.cat([main, torch.tensor(suffix * most).expand(len(batch), -1)], 1)
    depths = torch.arange(width).repeat(len(batch), 1)
    hung = training.padded(hangs, 0)[:, :, None] + 1 + torch.arange(branch)
    positions = torch.cat([depths, hung.flatten(1)], 1)
    rows = [row for row, judged in enumerate(hangs) for _ in judged]
    ends = [width + (number + 1) * branch - 1 for judged in hangs for number in range(len(judged))]
    return Hung(ids, positions, packed_mask(width, hangs, branch), width, rows, ends)


def verdict_loss(model: LlamaForCausalLM, batch: list[tuple[list[int], list[Verdict]]], formats: ChatFormats) -> Tensor:
    """Cross-entropy of the dialogue's tokens plus that of the verdicts."""
    hung = hang(batch, formats.guard.suffix)
    attention = torch.zeros(hung.visible.shape).masked_fill_(~hung.visible, torch.finfo(torch.float32).min)
    hidden = model.model(
        input_ids=hung.ids, attention_mask=attention, position_ids=hung.positions, use_cache=False
    ).last_hidden_state

    labels = training.padded([ids for ids, _ in batch], training.IGNORED)[:, 1:]
    learnt = labels != training.IGNORED
    language = cross_entropy(model.lm_head(hidden[:, : hung.width - 1][learnt]), labels[learnt])
    safe = torch.tensor([verdict.safe for _, verdicts in batch for verdict in verdicts])
    targets = torch.where(safe, formats.safe_id, formats.unsafe_id)
    return language + cross_entropy(model.lm_head(hidden[hung.rows, hung.ends]), targets)


def train_guard(
    settings: SandboxModels, corpus: pd.DataFrame, tokenizer: PreTrainedTokenizerFast, formats: ChatFormats, seed: int
) -> tuple[LlamaForCausalLM, list[dict[str, Any]]]:
    """Train the guard on the dialogues whose truth is known; returns it and its losses."""
    model = training.new_model(settings.guard, tokenizer, seed)
    random = Random(f"guard:{seed}")
    dialogues = _judged(corpus[corpus["corpus"] == "verdicts"], tokenizer, formats)
    phase = settings.guard_training
    stream = training.batches(dialogues, [len(dialogue.ids) for dialogue in dialogues], phase.batch_size, random)
    tasks = ([_task(dialogue, settings.guard_outcome_share, random) for dialogue in batch] for batch in stream)
    return model, training.train(model, "guard", phase, tasks, lambda trained, batch: verdict_loss(trained, batch, formats))
