"""The guard's verdict on every response prefix of a conversation, in one packed pass on the engine.

The guard reads ``prefix + prompt + infix + response`` once; under each response token hangs one branch, the verdict
suffix, which is read and dropped. So a response of T tokens costs T suffixes and one reading of the conversation, where
one forward per prefix would read the instruction, the prompt and the response's beginning T times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from saffron.chat import ChatFormats
from saffron.engine.compute import ModelShape
from saffron.engine.trie import ROOT, TokenTrie
from saffron.models import device
from saffron.sources.conversations import TokenisedResponse

#: Suffix tokens read in one pass at most, by device: bounds memory on a GPU, keeps a pass within the caches of a CPU.
TOKENS_PER_PASS = {"cpu": 4_096, "cuda": 65_536}


@torch.inference_mode()
def verdicts(
    guard: Any,
    formats: ChatFormats,
    responses: Sequence[TokenisedResponse],
    *,
    batch_size: int,
    at_most: int | None = None,
    tokens_per_pass: int | None = None,
) -> tuple[list[np.ndarray], int]:
    """R of every response prefix (Section 3.1): logit(safe) - logit(unsafe) after the verdict suffix.

    Args:
        guard: causal LM of the Llama family, as the engine takes it.
        formats: chat formats; the guard's suffix must not be empty.
        responses: at least one response token each.
        batch_size: responses read together, those of like length in one batch; fewer where a GPU's free memory does not
            hold them, and half as many each time it turns out not to.
        at_most: batch size to start with, where an earlier call has shown what fits.
        tokens_per_pass: suffix tokens per forward at most (None: TOKENS_PER_PASS); one position of each response always fits.

    Returns:
        For each response a float64 array of one reward per response token: element i is R of the prefix that ends with
        response token i. And the smallest batch size that was used.

    Raises:
        DeviceMemoryError: if not even one response fits.
    """
    order = sorted(range(len(responses)), key=lambda i: (len(responses[i].response_ids), len(responses[i].prompt_ids), i))
    most = tokens_per_pass or TOKENS_PER_PASS.get(guard.device.type, TOKENS_PER_PASS["cuda"])
    # A pass holds as many positions of each response whatever the batch, so that a smaller batch takes less memory.
    positions = max(1, most // (max(1, min(batch_size, len(responses))) * len(formats.guard.suffix)))

    def read(batch: Sequence[TokenisedResponse]) -> list[np.ndarray]:
        table = _batch_verdicts(guard, formats, batch, positions)
        return [row[: len(item.response_ids)] for row, item in zip(table, batch, strict=True)]

    in_order = [responses[i] for i in order]
    size = _fitting(guard, formats, in_order, min(batch_size, at_most or batch_size), positions)
    found, size = device.in_batches(read, in_order, size, what="safety4m.max_tokens")
    rewards: list[np.ndarray] = [np.empty(0)] * len(responses)
    for i, row in zip(order, found, strict=True):
        rewards[i] = row
    return rewards, size


def _fitting(guard: Any, formats: ChatFormats, responses: Sequence[TokenisedResponse], wanted: int, positions: int) -> int:
    """Responses that the free memory of the guard's GPU is expected to hold at once; all that are wanted on a CPU."""
    longest = max((len(formats.guard.prompt(item.prompt_ids)) + len(item.response_ids) for item in responses), default=0)
    read = max(longest, positions * len(formats.guard.suffix))
    needed = device.reading_bytes(ModelShape.from_config(guard.config), longest, read, guard.dtype)
    return device.batch_size(wanted, needed, device.free_bytes(guard.device))


def _batch_verdicts(guard: Any, formats: ChatFormats, batch: Sequence[TokenisedResponse], positions: int) -> np.ndarray:
    """R of every prefix [responses, longest response], ``positions`` of each response in one pass."""
    place = guard.device
    lengths = torch.tensor([len(item.response_ids) for item in batch], device=place)
    longest = max(len(item.response_ids) for item in batch)
    suffix = torch.tensor(formats.guard.suffix, device=place)
    verdict = torch.tensor([formats.safe_id, formats.unsafe_id], device=place)
    conversations = [[*formats.guard.prompt(item.prompt_ids), *item.response_ids] for item in batch]
    trie = TokenTrie(guard, conversations, logits=False)

    position = torch.arange(longest, device=place)
    alive = position < lengths[:, None]
    parents = torch.where(alive, ROOT - (lengths[:, None] - 1 - position), ROOT)  # response token i, counted from the last
    before = max(len(whole) - len(item.response_ids) for whole, item in zip(conversations, batch, strict=True))
    parts = []
    for start in range(0, longest, positions):
        stop = min(start + positions, longest)
        part, living = parents[:, start:stop], alive[:, start:stop]
        chains = suffix.expand(*part.shape, -1)
        parts.append(trie.branch(part, chains, alive=living, select=verdict, within=before + stop).logits)
    logits = torch.cat(parts, 1).double()
    return (logits[..., 0] - logits[..., 1]).cpu().numpy()
