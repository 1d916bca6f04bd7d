"""Selective Saffron-1: one sample, one reward call, and a search of the prompts whose sample is predicted to be unsafe.

The sample is the first of Best-of-N, so what no defense answers; its reward is what the search's reward model would give it:
M(s)[a] of its last token, unseen tokens being unseen here too, or the PRM's verdict.

Both parts count. They begin with one prompt, which a model reads once for both; what a search reads again of the sample's
tokens is paid again, as its trie is another one.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from saffron.engine.compute import Ledger
from saffron.engine.trie import ROOT
from saffron.methods.base import Block, Result
from saffron.methods.multifurcation import sample_rewards
from saffron.methods.saffron import search as saffron
from saffron.methods.saffron.selection import UNSEEN_REWARD, refuse_undefined
from saffron.methods.sampling import Samples, draw_samples, policy_flops
from saffron.methods.selective_saffron import Settings
from saffron.methods.verdicts import Verdicts


def search(block: Block, settings: Settings, budget: int) -> list[Result]:
    """Selective Saffron-1; the budget is the search's beam width N."""
    samples = draw_samples(block, 1)
    rewards, ledger = _predicted(block, settings, samples)
    refuse_undefined(False, bool(rewards.isnan().any()))
    stands = (rewards >= settings.threshold).tolist()
    first = _results(block, samples, rewards, ledger, budget)
    unsafe = [prompt for prompt, enough in zip(block.prompts, stands, strict=True) if not enough]
    searched = iter(saffron.search(replace(block, prompts=unsafe), settings, budget) if unsafe else [])
    results = []
    for prompt, sample, enough in zip(block.prompts, first, stands, strict=True):
        if enough:
            results.append(sample)
            continue
        found = next(searched)
        read = prompt.guard_ids if settings.scorer == "prm" else prompt.mrm_ids
        results.append(
            replace(
                found,
                flops_policy=sample.flops_policy + found.flops_policy - _prompt(samples.ledger, len(prompt.policy_ids)),
                flops_reward=sample.flops_reward + found.flops_reward - _prompt(ledger, len(read)),
                flops_executed_policy=sample.flops_executed_policy + found.flops_executed_policy,
                flops_executed_reward=sample.flops_executed_reward + found.flops_executed_reward,
                reward_calls=sample.reward_calls + found.reward_calls,
            )
        )
    return results


def _predicted(block: Block, settings: Settings, samples: Samples) -> tuple[Tensor, Ledger]:
    """float64 [B], the reward of each prompt's one sample, and the ledger of what the reward model read."""
    models, prompts = block.models, block.prompts
    if settings.scorer == "prm":
        verdicts = Verdicts(models.guard, models.formats, [prompt.guard_ids for prompt in prompts])
        alive = torch.ones_like(samples.lengths, dtype=torch.bool)
        parents = torch.full_like(samples.lengths, ROOT)
        return verdicts.read(parents, samples.tokens, lengths=samples.lengths, alive=alive)[1][:, 0], verdicts.trie.ledger
    mrm = saffron.mrm_of(models)
    rewards, ledger = sample_rewards(mrm, [prompt.mrm_ids for prompt in prompts], samples.tokens, samples.lengths)
    unseen = saffron.unseen_tokens(models, settings) if settings.conservative else None
    if unseen is not None:
        last = samples.tokens.gather(2, samples.lengths[..., None] - 1)[..., 0]
        rewards = rewards.masked_fill(unseen[last], UNSEEN_REWARD)
    return rewards[:, 0], ledger


def _results(block: Block, samples: Samples, rewards: Tensor, ledger: Ledger, budget: int) -> list[Result]:
    """The samples as results, with what drawing and reading them cost."""
    policy, tokens, lengths = policy_flops(block, samples)[:, 0].tolist(), samples.tokens.tolist(), samples.lengths.tolist()
    executed = samples.ledger.executed.tolist()
    columns = zip(rewards.tolist(), ledger.nominal.tolist(), ledger.executed.tolist(), strict=True)
    results = []
    for i, (prompt, (reward, nominal, read)) in enumerate(zip(block.prompts, columns, strict=True)):
        output = tokens[i][0][: lengths[i][0]]
        results.append(
            Result(
                prompt_id=prompt.prompt_id,
                budget=budget,
                output_ids=output,
                reward=reward,
                finished=output[-1] == block.models.formats.eos_id,
                flops_policy=policy[i],
                flops_reward=nominal,
                flops_executed_policy=executed[i],
                flops_executed_reward=read,
                reward_calls=1,
            )
        )
    return results


def _prompt(ledger: Ledger, length: int) -> float:
    """Nominal FLOPs of reading a prompt of this many tokens."""
    return float(ledger.shape.chain(0, length))
