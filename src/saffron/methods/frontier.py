"""What the tree searches share: operations on a frontier, entries [B, R] of B prompts, and the outputs of a block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saffron.engine.trie import TokenTrie, path_hashes
from saffron.methods.base import Result, SearchPrompt
from saffron.methods.verdicts import Verdicts

#: Steps between two looks at the device's state, when finished prompts leave the batch and dead nodes the tries.
COMPACT_EVERY = 4


def at_hand(device: torch.device) -> bool:
    """Whether the host reads a tensor there without waiting for a device, and so may in every step: on a CPU."""
    return device.type == "cpu"


def steps_ahead(step: int, limit: int) -> int:
    """Steps after ``step`` up to the one that ends with the next look, or to the last of ``limit``; -1 is before the first.

    So many times the policy reads from the end of ``step`` on before that look, and the PRM in the steps after it.
    """
    return min(COMPACT_EVERY - (step + 1) % COMPACT_EVERY, limit - 1 - step)


def best_first(values: Tensor) -> Tensor:
    """Positions [B, R] by value, descending, ties in the order given."""
    return values.sort(dim=1, descending=True, stable=True).indices


def true_first(mask: Tensor, count: int) -> Tensor:
    """Positions [B, count] of the true entries of mask [B, R], in order, then of others."""
    return (~mask).to(torch.uint8).sort(dim=1, stable=True).indices[:, :count]


def take(entries: Tensor, index: Tensor) -> Tensor:
    """``entries[b, index[b, r]]`` for entries [B, R, ...] and index [B, R']."""
    tail = entries.shape[2:]
    return entries.gather(1, index.view(*index.shape, *(1 for _ in tail)).expand(*index.shape, *tail))


def most_likely(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` most likely next tokens and their log probabilities, ties in vocabulary order.

    Args:
        logits: [..., V].
        count: tokens wanted; at most V are given.

    Returns:
        int64 [..., count] and float64 [..., count].
    """
    tokens = logits.sort(dim=-1, descending=True, stable=True).indices[..., :count]
    return tokens, log_probabilities(logits, tokens)


def log_probabilities(logits: Tensor, tokens: Tensor) -> Tensor:
    """float64 [..., K] log probabilities of tokens [..., K] by logits [..., V]."""
    return logits.gather(-1, tokens).double() - torch.logsumexp(logits.double(), -1, keepdim=True)


def first_occurrence(sequences: Tensor) -> Tensor:
    """For each token of sequences [B, R, T], the first row of its prompt that spells the same path up to it: [B, R, T]."""
    positions = torch.arange(sequences.shape[2], device=sequences.device)
    hashes = path_hashes(torch.zeros_like(sequences[..., 0]), sequences, positions)
    same = hashes[:, :, None] == hashes[:, None]  # [B, R, R, T]
    rows = torch.arange(same.shape[2], device=same.device).view(1, 1, -1, 1)
    return torch.where(same, rows, same.shape[2]).amin(2)


@dataclass(frozen=True)
class Chosen:
    """Some of each prompt's entries [B, R], moved to the front, for a forward that reads them alone.

    Attributes:
        index: int64 [B, R'] entries to read.
        alive: bool [B, R'] whether each is one of the chosen; the others are filler.
        place: int64 [B, R] where among them each chosen entry stands.
    """

    index: Tensor
    alive: Tensor
    place: Tensor

    @classmethod
    def of(cls, chosen: Tensor) -> Chosen:
        """R' is the most that any prompt has, where the host has that at hand, and R elsewhere."""
        count = max(1, int(chosen.sum(1).amax())) if at_hand(chosen.device) else chosen.shape[1]
        index = true_first(chosen, count)
        return cls(index, take(chosen, index), (chosen.cumsum(1) - 1).clamp(min=0))


def look(growing: Tensor, *numbers: Tensor) -> tuple[list[int], list[int]]:
    """What the host must know for a compaction, in its one device-to-host copy.

    Args:
        growing: [B, R] bool, entries that go on.
        numbers: [] int64 each, such as a trie's :meth:`saffron.engine.trie.TokenTrie.live_nodes`.

    Returns:
        The number of each prompt's entries that go on, and the other numbers.
    """
    read = torch.cat([growing.sum(1), torch.stack(numbers)] if numbers else [growing.sum(1)]).tolist()
    return read[: len(growing)], read[len(growing) :]


def unfinished(growing: list[int], device: torch.device) -> Tensor:
    """int64 [B']: the prompts with entries that go on, as :func:`look` counted them."""
    return torch.tensor([prompt for prompt, count in enumerate(growing) if count], dtype=torch.int64, device=device)


class Outputs:
    """The outputs of a block, written as its prompts finish, and the tries they are searched with.

    Args:
        policy: trie of the policy.
        verdicts: the PRM.
        max_new_tokens: token limit T.
    """

    def __init__(self, policy: TokenTrie, verdicts: Verdicts, max_new_tokens: int) -> None:
        self._policy, self._verdicts = policy, verdicts
        device = policy.device
        self._block = torch.arange(policy.batch, device=device)  # place in the block of each prompt still in the batch
        self._tokens = torch.zeros(policy.batch, max_new_tokens, dtype=torch.int64, device=device)
        self._rewards = torch.zeros(policy.batch, dtype=torch.float64, device=device)

    def write(self, tokens: Tensor, values: Tensor, rewards: Tensor) -> None:
        """Note each prompt's best entry so far: the first of the highest ``values``.

        Args:
            tokens: [B, R, T], EOS from the end of a sequence on.
            values: [B, R] what is maximised.
            rewards: [B, R] what is reported.
        """
        best = best_first(values)[:, :1]
        self._tokens[self._block] = take(tokens, best)[:, 0]
        self._rewards[self._block] = take(rewards, best)[:, 0]

    def drop_prompts(self, keep: Tensor) -> None:
        """Keep only these prompts [B'] in the batch; what was written of the others stands."""
        if len(keep) < len(self._block):
            self._policy.drop_prompts(keep)
            self._verdicts.drop_prompts(keep)
            self._block = self._block[keep]

    def results(self, prompts: Sequence[SearchPrompt], budget: int, eos: int) -> list[Result]:
        """The whole block's results, with the tries' ledgers."""
        policy, guard = self._policy.ledger, self._verdicts.trie.ledger
        columns = (self._rewards, policy.nominal, guard.nominal, policy.executed, guard.executed, self._verdicts.calls)
        rows = zip(prompts, self._tokens.tolist(), *(column.tolist() for column in columns), strict=True)
        return [
            Result(
                prompt_id=prompt.prompt_id,
                budget=budget,
                output_ids=tokens[: tokens.index(eos) + 1] if eos in tokens else tokens,
                reward=reward,
                finished=eos in tokens,
                flops_policy=flops_policy,
                flops_reward=flops_reward,
                flops_executed_policy=executed_policy,
                flops_executed_reward=executed_reward,
                reward_calls=calls,
            )
            for prompt, tokens, reward, flops_policy, flops_reward, executed_policy, executed_reward, calls in rows
        ]
