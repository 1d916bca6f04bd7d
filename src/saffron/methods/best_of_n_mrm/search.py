"""Best-of-N by MRMs: Best-of-N's samples, each rewarded by M(s)[a] of its last token, all budgets from one sampling.

Tokens that no MRM saw as a target score -1024, as in Saffron-1, whose rewards these are; EOS counts as seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch

from saffron.methods.base import Block, Result
from saffron.methods.best_of_n_mrm import Settings
from saffron.methods.multifurcation import aggregated, members, sample_rewards
from saffron.methods.saffron.selection import UNSEEN_REWARD
from saffron.methods.sampling import Samples, draw_samples, policy_flops


def search(block: Block, settings: Settings, budgets: Sequence[int]) -> list[Result]:
    """Best-of-N by MRMs at every number of samples of ``budgets``."""
    models, mrms = block.models, members(block.models, settings)
    samples = draw_samples(block, max(budgets))
    prompts = [prompt.mrm_ids for prompt in block.prompts]
    read = [sample_rewards(mrm, prompts, samples.tokens, samples.lengths) for mrm in mrms]
    rewards = aggregated(torch.stack([found for found, _ in read]), settings)
    if models.unseen is not None:
        unseen = models.unseen.clone()
        unseen[models.formats.eos_id] = False
        last = samples.tokens.gather(2, samples.lengths[..., None] - 1)[..., 0]
        rewards = rewards.masked_fill(unseen[last], UNSEEN_REWARD)
    drawn, cost, calls = policy_flops(block, samples), len(mrms) * _read_flops(block, samples), _calls(samples)
    tokens, lengths, reward = samples.tokens.tolist(), samples.lengths.tolist(), rewards.cpu().numpy()
    executed_policy = samples.ledger.executed.tolist()
    executed_reward = torch.stack([ledger.executed for _, ledger in read]).sum(0).tolist()
    results = []
    for budget in budgets:
        for i, prompt in enumerate(block.prompts):
            best = int(np.argmax(reward[i, :budget]))  # the first of equals
            output = tokens[i][best][: lengths[i][best]]
            results.append(
                Result(
                    prompt_id=prompt.prompt_id,
                    budget=budget,
                    output_ids=output,
                    reward=float(reward[i, best]),
                    finished=output[-1] == models.formats.eos_id,
                    flops_policy=float(drawn[i, budget - 1]),
                    flops_reward=float(cost[i, budget - 1]),
                    flops_executed_policy=executed_policy[i],
                    flops_executed_reward=executed_reward[i],
                    reward_calls=len(mrms) * calls[i][budget - 1],
                )
            )
    return results


def _read_flops(block: Block, samples: Samples) -> np.ndarray:
    """Nominal FLOPs [B, N] of one MRM's reading of the first n samples, at index n - 1: it reads of them what the policy does."""
    prompts = [replace(prompt, policy_ids=prompt.mrm_ids) for prompt in block.prompts]
    assert block.models.mrm is not None
    return policy_flops(replace(block, models=replace(block.models, policy=block.models.mrm), prompts=prompts), samples)


def _calls(samples: Samples) -> list[list[int]]:
    """Calls of one MRM for the first n samples, at index n - 1; samples that differ in their last token alone share one."""
    counts = []
    for rows, lengths in zip(samples.tokens.tolist(), samples.lengths.tolist(), strict=True):
        read: set[tuple[int, ...]] = set()
        news = []
        for row, length in zip(rows, lengths, strict=True):
            start = tuple(row[: length - 1])
            news.append(start not in read)
            read.add(start)
        counts.append(list(accumulate(map(int, news))))
    return counts
