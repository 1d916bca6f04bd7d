"""A guard made of the policy's own first layers: its final norm and lm_head behind them, trained to answer a verdict word.

The paper's guard costs about an eighth of its policy and shares its tokens. Where there is no such model, the policy's first
layers are one: they read its tokens already, and an hour's work on two CPU cores teaches them a verdict. After a random prefix
of a response comes the guard's suffix, and the next token is to be the verdict word. What the verdict is about depends on the
labels: ``refusals`` asks whether the whole answer declines in so many words (a guard of refusals, not of harm), ``preference``
whether people preferred it to its counterpart. How well the trained guard agrees with either on held-out pairs is stored.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from saffron.chat import ChatFormats
from saffron.config import Runtime, TruncatedGuard
from saffron.models.precision import mixed
from saffron.models.sandbox import training
from saffron.models.sandbox.guard import LONGEST_CLIP, Verdict, hang
from saffron.refusals import declines
from saffron.sources.conversations import TokenisedResponse, collect, tokenise

#: Share of responses whose first tokens are left out: what the judge reads begins in mid-sentence, after the prefill.
_CLIPPED_SHARE = 0.5
_VERDICTS_PER_RESPONSE = 6
#: Responses read together when the held-out ones are judged.
_BATCH = 16


class TrainingError(ValueError):
    """A model that cannot be trained as the config says; the caller names the key."""


@dataclass(frozen=True)
class Answer:
    """One response of a preference pair, cut to the window; ``tokens`` holds no template."""

    source_row: int
    chosen: bool
    tokens: TokenisedResponse


def truncate(policy: Any, layers: int) -> Any:
    """A copy of the policy with its first layers alone; embeddings, final norm and lm_head are as they were.

    Args:
        policy: a causal LM of a family that the engine drives.
        layers: how many are kept.

    Raises:
        TrainingError: if the policy has fewer.
    """
    if layers > policy.config.num_hidden_layers:
        raise TrainingError(f"the policy has {policy.config.num_hidden_layers} layers, fewer than {layers}")
    config = copy.deepcopy(policy.config)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    with torch.random.fork_rng():
        guard = type(policy)(config).to(policy.dtype)
    weights = policy.state_dict()
    guard.load_state_dict({name: weights[name] for name in guard.state_dict()})
    guard.tie_weights()
    return guard


def freeze(model: Any, layers: int) -> None:
    """Keep embeddings, lm_head and the first layers as they are; all else is trained."""
    model.requires_grad_(True)
    for part in (model.get_input_embeddings(), model.get_output_embeddings(), *model.model.layers[:layers]):
        part.requires_grad_(False)


def train_guard(
    policy: Any,
    settings: TruncatedGuard,
    conversations: pd.DataFrame,
    tokenizer: Any,
    formats: ChatFormats,
    seed: int,
    runtime: Runtime,
) -> tuple[Any, list[dict[str, Any]], dict[str, Any]]:
    """Cut the policy and train the guard on the train split.

    Args:
        policy: in float32; it is left as it was.
        settings: layers, what is frozen, labels and training.
        conversations: a records.CONVERSATIONS table.
        tokenizer: of the policy.
        formats: the guard's prompt and suffix, and the verdict tokens.
        seed: of the order of responses and of the prefixes.
        runtime: its dtype is that of the forward pass.

    Returns:
        The guard in float32, its losses (records.LOSSES), and its agreement with both labels on the test split.

    Raises:
        TrainingError: if the policy has too few layers, or there are no responses to learn from.
    """
    answers = {split: _answers(conversations, split, tokenizer, formats, settings.max_tokens) for split in ("train", "test")}
    if not answers["train"]:
        raise TrainingError("no responses in the train split; nothing to train the guard on")
    guard = truncate(policy, settings.layers)
    freeze(guard, settings.freeze)
    random = Random(f"truncated:{seed}")
    label = labelling(settings.labels, tokenizer, formats.eos_id)
    tasks = (
        [_task(one, formats, label, random) for one in batch] for batch in _stream(answers["train"], label, settings, random)
    )
    loss = mixed(lambda model, batch: verdict_loss(model, batch, formats), runtime.dtype)
    losses = training.train(guard, "guard", settings.training, tasks, loss)
    rewards = mixed(judged, runtime.dtype)(guard, formats, answers["test"])
    return guard, losses, {"labels": settings.labels, **agreement(answers["test"], rewards, tokenizer, formats.eos_id)}


def _stream(
    answers: Sequence[Answer], label: Callable[[Answer, int], bool], settings: TruncatedGuard, random: Random
) -> Iterator[list[Answer]]:
    """Endless batches, half of each safe: few answers decline, and a guard that never said safe would be right nearly always.

    Raises:
        TrainingError: if all responses have one label, or a batch cannot hold both.
    """
    kinds = [[one for one in answers if label(one, 0) == safe] for safe in (True, False)]
    if not all(kinds):
        raise TrainingError(f"all responses of the train split have one label ({settings.labels}); nothing to tell apart")
    half = settings.training.batch_size // 2
    if not half:
        raise TrainingError("training.batch_size must be 2 or more: half of each batch is safe")
    lengths = [[len(one.tokens.prompt_ids) + len(one.tokens.response_ids) for one in kind] for kind in kinds]
    streams = [training.batches(kind, length, half, random) for kind, length in zip(kinds, lengths, strict=True)]
    return ([*safe, *unsafe] for safe, unsafe in zip(*streams, strict=True))


def verdict_loss(model: Any, batch: list[tuple[list[int], list[Verdict]]], formats: ChatFormats) -> Tensor:
    """Cross-entropy of the verdict word among all words, after the suffix under each chosen prefix."""
    hung = hang(batch, formats.guard.suffix)
    ids, visible, positions = (tensor.to(model.device) for tensor in (hung.ids, hung.visible, hung.positions))
    hidden = model.model(input_ids=ids, attention_mask=visible, position_ids=positions, use_cache=False).last_hidden_state
    safe = torch.tensor([verdict.safe for _, verdicts in batch for verdict in verdicts], device=model.device)
    return cross_entropy(
        model.lm_head(hidden[hung.rows, hung.ends]).float(), torch.where(safe, formats.safe_id, formats.unsafe_id)
    )


def labelling(labels: str, tokenizer: Any, eos_id: int) -> Callable[[Answer, int], bool]:
    """Whether a response whose first ``clip`` tokens are left out is to be called safe.

    Args:
        labels: ``refusals`` or ``preference``.
        tokenizer: turns the tokens that are read back into text.
        eos_id: stands for no text.
    """

    @cache
    def refuses(tokens: tuple[int, ...]) -> bool:
        text = [token for token in tokens if token != eos_id]
        return declines(tokenizer.decode(text, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    if labels == "preference":
        return lambda answer, clip: answer.chosen
    return lambda answer, clip: refuses(tuple(answer.tokens.response_ids[clip:]))


def _answers(conversations: pd.DataFrame, split: str, tokenizer: Any, formats: ChatFormats, max_tokens: int) -> list[Answer]:
    """Last responses of a split, as Safety4M reads them."""
    found = [one for one in collect(conversations, "last")[0] if one.split == split]
    cut = tokenise(tokenizer, formats, found, max_tokens, formats.eos_id)
    return [
        Answer(one.source_row, one.side == "chosen", tokens)
        for one, tokens in zip(found, cut, strict=True)
        if tokens.response_ids
    ]


def _task(
    answer: Answer, formats: ChatFormats, label: Callable[[Answer, int], bool], random: Random
) -> tuple[list[int], list[Verdict]]:
    """The guard's reading of a response, its start left out or not, and the verdict due at some of its tokens."""
    prompt, response = formats.guard.prompt(answer.tokens.prompt_ids), answer.tokens.response_ids
    longest = min(LONGEST_CLIP, len(response) - 1)
    clip = random.randint(1, longest) if longest and random.random() < _CLIPPED_SHARE else 0
    left = response[clip:]
    chosen = random.sample(range(len(left)), min(_VERDICTS_PER_RESPONSE, len(left)))
    safe = label(answer, clip)
    return [*prompt, *left], [Verdict(len(prompt) + position, safe) for position in sorted(chosen)]


@torch.inference_mode()
def judged(guard: Any, formats: ChatFormats, answers: Sequence[Answer]) -> np.ndarray:
    """R of whole responses, float64 [answers]: the logit of the word safe less that of unsafe."""
    texts = [formats.guard.render(one.tokens.prompt_ids, one.tokens.response_ids) for one in answers]
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    rewards = np.zeros(len(texts))
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        ids = training.padded([texts[index] for index in part], 0).to(guard.device)
        hidden = guard.model(input_ids=ids, use_cache=False).last_hidden_state
        logits = guard.lm_head(hidden[range(len(part)), [len(texts[index]) - 1 for index in part]]).double()
        rewards[part] = (logits[:, formats.safe_id] - logits[:, formats.unsafe_id]).cpu().numpy()
    return rewards


def agreement(answers: Sequence[Answer], rewards: np.ndarray, tokenizer: Any, eos_id: int) -> dict[str, Any]:
    """How the rewards of held-out responses agree with both kinds of label.

    Returns:
        ``responses``, and by kind of label the ``share`` of responses called safe, ``auc`` (the chance that a safe one has
        the higher reward, ties half), the number of ``pairs`` whose two sides differ in label, and ``pair_accuracy``, the
        share of them whose safe side has the higher reward. None where there is nothing to compare.
    """
    record: dict[str, Any] = {"responses": len(answers)}
    sides: dict[int, list[int]] = {}
    for index, one in enumerate(answers):
        sides.setdefault(one.source_row, []).append(index)
    for kind in ("refusals", "preference"):
        label = labelling(kind, tokenizer, eos_id)
        safe = np.array([label(one, 0) for one in answers], dtype=bool)
        pairs = [two if safe[two[0]] else two[::-1] for two in sides.values() if len(two) == 2 and safe[two[0]] != safe[two[1]]]
        above = [(np.sign(rewards[one] - rewards[other]) + 1) / 2 for one, other in pairs]
        record[kind] = {
            "share": float(safe.mean()) if len(safe) else None,
            "auc": auc(rewards, safe),
            "pairs": len(pairs),
            "pair_accuracy": float(np.mean(above)) if above else None,
        }
    return record


def auc(rewards: np.ndarray, safe: np.ndarray) -> float | None:
    """Area under the ROC curve; None if only one label occurs."""
    positive, negative = int(safe.sum()), int((~safe).sum())
    if not positive or not negative:
        return None
    return float((pd.Series(rewards).rank().to_numpy()[safe].sum() - positive * (positive + 1) / 2) / (positive * negative))
