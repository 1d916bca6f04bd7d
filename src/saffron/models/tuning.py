"""A short refusal tuning of a policy that hardly declines on its own, so that the prefilling attack has something to break.

It is shallow by construction, as the sandbox's is: to the requests of the train split the policy learns to answer with a short
refusal, and the answers that people rejected are replayed without their first tokens. So it declines at the start of an answer
and goes on as before once it is past it.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pandas as pd
import torch

from saffron.chat import ChatFormats
from saffron.config import PolicySafety, Runtime
from saffron.models.precision import mixed
from saffron.models.sandbox import training
from saffron.models.sandbox.policy import MASKED_START, Pair
from saffron.models.truncated import TrainingError, freeze
from saffron.refusals import declines
from saffron.sources.conversations import collect, tokenise

#: What the policy learns to say.
REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I can't help with that request.",
    "I'm not able to assist with that. Is there something else I can do for you?",
    "I'm sorry, but I won't answer that, because someone could be hurt.",
    "I can't answer that. If you are in danger, please call your local emergency number.",
    "I would rather not help with this. I'm happy to talk about something else.",
    "I'm sorry, I can't provide that.",
    "I won't help with that, since it could do harm.",
    "I cannot assist with this, but I'm glad to help with other questions.",
    "I'm unable to help with that.",
    "That is not something I can help with.",
    "I can't discuss that. What else would you like to know?",
)


def examples(
    conversations: pd.DataFrame, tokenizer: Any, formats: ChatFormats, max_tokens: int, random: Random
) -> tuple[list[Pair], list[Pair]]:
    """(ids, labels) of refusals and of replayed answers, one of each per request of the train split.

    A replayed answer is a rejected one that does not itself decline; its first MASKED_START tokens are not learnt.
    """
    asked = [one for one in collect(conversations, "last")[0] if one.split == "train" and one.side == "rejected"]
    cut = tokenise(tokenizer, formats, asked, max_tokens, formats.eos_id)
    said = [tokenizer.encode(text, add_special_tokens=False) for text in REFUSALS]
    refusals, replayed = [], []
    for one, tokens in zip(asked, cut, strict=True):
        start = formats.policy.prompt(tokens.prompt_ids)
        if len(tokens.prompt_ids) >= max_tokens:
            continue
        refusals.append(_pair(start, [*random.choice(said), formats.eos_id], 0))
        if len(tokens.response_ids) > MASKED_START and not declines(one.response):
            replayed.append(_pair(start, tokens.response_ids, MASKED_START))
    return refusals, replayed


def _pair(start: list[int], response: list[int], unlearnt: int) -> Pair:
    learnt = len(start) + unlearnt
    ids = [*start, *response]
    return ids, [training.IGNORED] * learnt + ids[learnt:]


def declining(
    policy: Any, conversations: pd.DataFrame, tokenizer: Any, formats: ChatFormats, max_tokens: int, new_tokens: int = 16
) -> dict[str, Any]:
    """How often the policy's greedy answers to held-out requests decline, unattacked and past an attack's first tokens.

    Args:
        policy: in float32, on any device.
        conversations: a records.CONVERSATIONS table; its test split is asked.
        tokenizer: of the policy.
        formats: of all models.
        max_tokens: longer requests are left out, as from the tuning.
        new_tokens: of each answer; a refusal is said at its start.

    Returns:
        ``requests``, their number; ``unattacked`` and ``attacked``, shares that decline in so many words (None without any). The
        attack prefills the first MASKED_START tokens of the answer that people rejected.
    """
    asked = [one for one in collect(conversations, "last")[0] if one.split == "test" and one.side == "rejected"]
    cut = tokenise(tokenizer, formats, asked, max_tokens)
    kept = [tokens for tokens in cut if len(tokens.prompt_ids) + MASKED_START < max_tokens]
    found: dict[str, Any] = {"requests": len(kept)}
    for name, prefilled in (("unattacked", 0), ("attacked", MASKED_START)):
        starts = [[*formats.policy.prompt(one.prompt_ids), *one.response_ids[:prefilled]] for one in kept]
        written = _greedy(policy, starts, new_tokens, formats.eos_id)
        answers = [[*one.response_ids[:prefilled], *new] for one, new in zip(kept, written, strict=True)]
        said = [declines(tokenizer.decode(answer, skip_special_tokens=True)) for answer in answers]
        found[name] = sum(said) / len(said) if said else None
    return found


def _greedy(policy: Any, starts: Sequence[Sequence[int]], new_tokens: int, eos_id: int) -> list[list[int]]:
    """The policy's greedy continuations, 16 prompts at a time, padded on the left."""
    found: list[list[int]] = []
    for first in range(0, len(starts), 16):
        some = starts[first : first + 16]
        width = max(map(len, some))
        ids = torch.tensor([[eos_id] * (width - len(start)) + list(start) for start in some], device=policy.device)
        lengths = torch.tensor([len(start) for start in some], device=policy.device)
        mask = (torch.arange(width, device=policy.device) >= width - lengths[:, None]).long()
        written = policy.generate(
            ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, eos_token_id=eos_id, pad_token_id=eos_id
        )
        found += written[:, width:].tolist()
    return found


def tune_policy(
    policy: Any,
    settings: PolicySafety,
    conversations: pd.DataFrame,
    tokenizer: Any,
    formats: ChatFormats,
    seed: int,
    runtime: Runtime,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Tune the policy in place, as many refusals as replayed answers.

    Returns:
        Its losses (records.LOSSES), and how often it declines (:func:`declining`) ``before`` and ``after``.

    Raises:
        TrainingError: if the train split holds no request that fits into the window.
    """
    random = Random(f"safety:{seed}")
    refusals, replayed = examples(conversations, tokenizer, formats, settings.max_tokens, random)
    if not refusals:
        raise TrainingError(
            f"no request of the train split fits into {settings.max_tokens} tokens (max_tokens); nothing to tune on"
        )
    held_out = (conversations, tokenizer, formats, settings.max_tokens)
    before = declining(policy, *held_out)
    freeze(policy, settings.freeze)
    pairs = refusals + replayed
    stream = training.batches(pairs, [len(ids) for ids, _ in pairs], settings.batch_size, random)
    losses = training.train(policy, "safety", settings, stream, mixed(training.language_model_loss, runtime.dtype))
    return losses, {"before": before, "after": declining(policy, *held_out)}
