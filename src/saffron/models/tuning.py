"""A short refusal tuning of a policy that hardly declines on its own, so that the prefilling attack has something to break.

It is shallow by construction, as the sandbox's is: to the requests of the train split the policy learns to answer with a short
refusal, and the answers that people rejected are replayed without their first tokens. So it declines at the start of an answer
and goes on as before once it is past it.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pandas as pd

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


def tune_policy(
    policy: Any,
    settings: PolicySafety,
    conversations: pd.DataFrame,
    tokenizer: Any,
    formats: ChatFormats,
    seed: int,
    runtime: Runtime,
) -> list[dict[str, Any]]:
    """Tune the policy in place, as many refusals as replayed answers; returns its losses (records.LOSSES).

    Raises:
        TrainingError: if the train split holds no request that fits into the window.
    """
    random = Random(f"safety:{seed}")
    refusals, replayed = examples(conversations, tokenizer, formats, settings.max_tokens, random)
    if not refusals:
        raise TrainingError(
            f"no request of the train split fits into {settings.max_tokens} tokens (max_tokens); nothing to tune on"
        )
    freeze(policy, settings.freeze)
    pairs = refusals + replayed
    stream = training.batches(pairs, [len(ids) for ids, _ in pairs], settings.batch_size, random)
    return training.train(policy, "safety", settings, stream, mixed(training.language_model_loss, runtime.dtype))
