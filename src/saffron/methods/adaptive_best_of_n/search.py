"""Adaptive Best-of-N: rounds of samples, each as large as all before it, for the prompts that are still looked at.

All budgets come from one search at the largest: where a prompt stops is the same at every budget above it. The samples are
Best-of-N's, in its order; the nominal compute of each budget is that of the samples that it has drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from saffron.engine.trie import ROOT
from saffron.methods.adaptive_best_of_n import Settings
from saffron.methods.base import Block, Result
from saffron.methods.frontier import Chosen, first_occurrence, take
from saffron.methods.random import RandomKey
from saffron.methods.sampling import Samples, VerdictCost, draw_samples, policy_flops
from saffron.methods.verdicts import Verdicts


@dataclass(frozen=True)
class _Later(RandomKey):
    """The draws of the samples from ``start`` on."""

    start: int

    def uniform(self, prompt_ids: Tensor, samples: Tensor, step: int) -> Tensor:
        """See :class:`saffron.methods.random.RandomKey`."""
        return super().uniform(prompt_ids, samples + self.start, step)


def search(block: Block, settings: Settings, budgets: Sequence[int]) -> list[Result]:
    """Adaptive Best-of-N at every largest number of samples of ``budgets``."""
    models, prompts, most = block.models, block.prompts, max(budgets)
    verdicts = Verdicts(models.guard, models.formats, [prompt.guard_ids for prompt in prompts])
    device, size = verdicts.trie.device, (len(prompts), most)
    tokens = torch.full((*size, block.max_new_tokens), models.formats.eos_id, device=device)
    lengths = torch.ones(size, dtype=torch.int64, device=device)
    rewards = torch.full(size, -torch.inf, dtype=torch.float64, device=device)
    executed = torch.zeros(len(prompts), dtype=torch.float64, device=device)
    given = np.full(len(prompts), most)  # samples after which a prompt gets no more
    looked_at = torch.arange(len(prompts), device=device)  # places in the block
    start = 0
    for stop in looks(settings.first, most):
        key = _Later(block.key.dataset, block.key.search_seed, start)
        drawn = draw_samples(replace(block, prompts=[prompts[place] for place in looked_at.tolist()], key=key), stop - start)
        tokens[looked_at, start:stop], lengths[looked_at, start:stop] = drawn.tokens, drawn.lengths
        executed[looked_at] += drawn.ledger.executed
        rewards[looked_at, :stop] = _rewards(
            verdicts, tokens[looked_at, :stop], lengths[looked_at, :stop], rewards[looked_at, :stop], start
        )
        best = rewards[looked_at].amax(1)
        enough = (best >= settings.enough) | best.isnan()
        ends = enough if settings.hopeless is None else enough | (best < settings.hopeless)
        given[looked_at[ends].cpu().numpy()] = stop
        keep = (~ends).nonzero()[:, 0]
        looked_at, start = looked_at[keep], stop
        if not len(keep):
            break
        verdicts.drop_prompts(keep)
    # Nominal costs follow from tokens and lengths; what was executed stands apart, as each round has a ledger.
    return _results(block, budgets, Samples(tokens, lengths, drawn.ledger), rewards, given, executed.tolist(), verdicts)


def looks(first: int, most: int) -> list[int]:
    """Numbers of samples at which rewards are looked at: ``first``, twice that and so on, and ``most`` at the end."""
    found = []
    while first < most:
        found.append(first)
        first *= 2
    return [*found, most]


def _rewards(verdicts: Verdicts, tokens: Tensor, lengths: Tensor, known: Tensor, start: int) -> Tensor:
    """Rewards [B, n] of the first n samples: those before ``start`` are known, of the others each new response is read."""
    twin = first_occurrence(tokens)[..., -1]
    place = torch.arange(twin.shape[1], device=twin.device)
    new = (twin == place) & (place >= start)
    read = Chosen.of(new)
    _, verdict = verdicts.read(
        torch.full_like(read.index, ROOT),
        take(tokens, read.index),
        lengths=take(lengths, read.index),
        alive=read.alive,
    )
    return take(torch.where(new, take(verdict, read.place), known), twin)


def _results(
    block: Block,
    budgets: Sequence[int],
    samples: Samples,
    rewards: Tensor,
    given: np.ndarray,
    executed: list[float],
    verdicts: Verdicts,
) -> list[Result]:
    """The best sample of each prompt at each budget, with the cost of those that it was given."""
    drawn, cost = policy_flops(block, samples), VerdictCost.of(verdicts.trie.ledger.shape, block, samples)
    tokens, lengths, reward = samples.tokens.tolist(), samples.lengths.tolist(), rewards.cpu().numpy()
    executed_reward = verdicts.trie.ledger.executed.tolist()
    results = []
    for budget in budgets:
        for i, prompt in enumerate(block.prompts):
            count = min(budget, int(given[i]))
            best = int(np.argmax(reward[i, :count]))  # the first of equals
            output = tokens[i][best][: lengths[i][best]]
            results.append(
                Result(
                    prompt_id=prompt.prompt_id,
                    budget=budget,
                    output_ids=output,
                    reward=float(reward[i, best]),
                    finished=output[-1] == block.models.formats.eos_id,
                    flops_policy=float(drawn[i, count - 1]),
                    flops_reward=float(cost.flops[i, count - 1]),
                    flops_executed_policy=executed[i],
                    flops_executed_reward=executed_reward[i],
                    reward_calls=int(cost.calls[i, count - 1]),
                )
            )
    return results
