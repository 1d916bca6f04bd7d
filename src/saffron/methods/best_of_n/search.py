"""Best-of-N: all budgets from one sampling at the largest.

The first n samples are what a run at n would have drawn. The nominal compute of each budget is what it would have cost alone;
the executed compute is that of the one sampling behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from saffron.engine.trie import ROOT
from saffron.methods.base import Block, Result
from saffron.methods.best_of_n import Settings
from saffron.methods.frontier import Chosen, first_occurrence, take
from saffron.methods.sampling import VerdictCost, draw_samples, policy_flops
from saffron.methods.verdicts import Verdicts


def search(block: Block, settings: Settings, budgets: Sequence[int]) -> list[Result]:
    """Best-of-N at every number of samples of ``budgets``."""
    models, prompts = block.models, block.prompts
    samples = draw_samples(block, max(budgets))
    verdicts = Verdicts(models.guard, models.formats, [prompt.guard_ids for prompt in prompts])
    # A response that several samples spell is read once. Ended samples are padded with EOS, so whole rows can be compared.
    twin = first_occurrence(samples.tokens)[..., -1]
    read = Chosen.of(twin == torch.arange(twin.shape[1], device=twin.device))
    _, verdict = verdicts.read(
        torch.full_like(read.index, ROOT),
        take(samples.tokens, read.index),
        lengths=take(samples.lengths, read.index),
        alive=read.alive,
    )
    rewards = take(verdict, take(read.place, twin))
    drawn = policy_flops(block, samples)
    cost = VerdictCost.of(verdicts.trie.ledger.shape, block, samples)
    tokens, lengths, reward = samples.tokens.tolist(), samples.lengths.tolist(), rewards.cpu().numpy()
    executed_policy, executed_reward = samples.ledger.executed.tolist(), verdicts.trie.ledger.executed.tolist()
    results = []
    for budget in budgets:
        for i, prompt in enumerate(prompts):
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
                    flops_reward=float(cost.flops[i, budget - 1]),
                    flops_executed_policy=executed_policy[i],
                    flops_executed_reward=executed_reward[i],
                    reward_calls=int(cost.calls[i, budget - 1]),
                )
            )
    return results
