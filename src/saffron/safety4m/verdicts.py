"""The guard's verdict on every response prefix of a conversation, in one packed pass on the engine.

The guard reads ``prefix + prompt + infix + response`` once; under each response token hangs one branch, the verdict
suffix, which is read and dropped. So a response of T tokens costs T suffixes and one reading of the conversation, where
one forward per prefix would read the instruction, the prompt and the response's beginning T times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from saffron.chat import ChatFormats
from saffron.safety4m.conversations import Response
from saffron.trie import ROOT, TokenTrie

#: Suffix tokens read in one pass at most, by device: bounds memory on a GPU, keeps a pass within the caches of a CPU.
TOKENS_PER_PASS = {"cpu": 4_096, "cuda": 65_536}


@dataclass(frozen=True)
class TokenisedResponse:
    """A response cut to the window: prompt and response token ids, no template."""

    prompt_ids: list[int]
    response_ids: list[int]


def tokenise(
    tokenizer: Any, responses: Sequence[Response], max_tokens: int, eos_id: int | None = None
) -> list[TokenisedResponse]:
    """Prompt and response as token ids, prompt + response cut to the first ``max_tokens``.

    They are encoded apart, because the chat formats join them as ids. ``response_ids`` is empty where the prompt alone
    fills the window, and ends with ``eos_id`` (unless that is None) where the whole response and EOS fit into it.
    """
    if not responses:
        return []
    prompts = tokenizer([r.prompt for r in responses], add_special_tokens=False)["input_ids"]
    answers = tokenizer([r.response for r in responses], add_special_tokens=False)["input_ids"]
    end = [] if eos_id is None else [eos_id]
    return [
        TokenisedResponse(list(prompt[:max_tokens]), [*answer, *end][: max(0, max_tokens - len(prompt))])
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


@torch.inference_mode()
def verdicts(
    guard: Any,
    formats: ChatFormats,
    responses: Sequence[TokenisedResponse],
    *,
    batch_size: int,
    tokens_per_pass: int | None = None,
) -> list[np.ndarray]:
    """R of every response prefix (Section 3.1): logit(safe) - logit(unsafe) after the verdict suffix.

    Args:
        guard: causal LM of the Llama family, as the engine takes it.
        formats: chat formats; the guard's suffix must not be empty.
        responses: at least one response token each.
        batch_size: responses read together, those of like length in one batch.
        tokens_per_pass: suffix tokens per forward at most (None: TOKENS_PER_PASS); one position of each response always fits.

    Returns:
        For each response a float64 array of one reward per response token: element i is R of the prefix that ends with
        response token i.
    """
    order = sorted(range(len(responses)), key=lambda i: (len(responses[i].response_ids), len(responses[i].prompt_ids), i))
    most = tokens_per_pass or TOKENS_PER_PASS.get(guard.device.type, TOKENS_PER_PASS["cuda"])
    rewards: list[np.ndarray] = [np.empty(0)] * len(responses)
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        table = _batch_verdicts(guard, formats, [responses[i] for i in indices], most)
        for row, i in zip(table, indices, strict=True):
            rewards[i] = row[: len(responses[i].response_ids)]
    return rewards


def _batch_verdicts(guard: Any, formats: ChatFormats, batch: list[TokenisedResponse], tokens_per_pass: int) -> np.ndarray:
    device = guard.device
    lengths = torch.tensor([len(item.response_ids) for item in batch], device=device)
    longest = max(len(item.response_ids) for item in batch)
    suffix = torch.tensor(formats.guard.suffix, device=device)
    verdict = torch.tensor([formats.safe_id, formats.unsafe_id], device=device)
    conversations = [[*formats.guard.prompt(item.prompt_ids), *item.response_ids] for item in batch]
    trie = TokenTrie(guard, conversations, max_nodes=1, logits=False)

    position = torch.arange(longest, device=device)
    alive = position < lengths[:, None]
    parents = torch.where(alive, ROOT - (lengths[:, None] - 1 - position), ROOT)  # response token i, counted from the last
    step = max(1, tokens_per_pass // (len(batch) * len(suffix)))
    parts = []
    for part, living in zip(parents.split(step, 1), alive.split(step, 1), strict=True):
        chains = suffix.expand(*part.shape, -1)
        parts.append(trie.branch(part, chains, alive=living, select=verdict).logits)
    logits = torch.cat(parts, 1).double()
    return (logits[..., 0] - logits[..., 1]).cpu().numpy()
