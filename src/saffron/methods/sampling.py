"""Independent samples of a block, and what they cost: Best-of-N's, of which no defense takes the first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saffron.engine.compute import Ledger, ModelShape
from saffron.engine.trie import ROOT, TokenTrie
from saffron.methods.base import Block
from saffron.methods.frontier import COMPACT_EVERY, first_occurrence, look, steps_ahead, take, true_first, unfinished
from saffron.methods.random import inverse_cdf


@dataclass(frozen=True)
class Samples:
    """Independent samples of a block.

    Attributes:
        tokens: int64 [B, N, T], EOS from the end of a sample on.
        lengths: int64 [B, N], EOS included.
        ledger: what the policy read.
    """

    tokens: Tensor
    lengths: Tensor
    ledger: Ledger


def draw_samples(block: Block, count: int) -> Samples:
    """Sample ``count`` responses per prompt at temperature 1; finished samples and prompts leave the batch."""
    models, prompts, max_new_tokens = block.models, block.prompts, block.max_new_tokens
    eos = models.formats.eos_id
    policy = TokenTrie(models.policy, [prompt.policy_ids for prompt in prompts], layout="rows")
    assert policy.root_logits is not None
    batch, device = len(prompts), policy.device
    prompt_ids = torch.tensor([[prompt.prompt_id] for prompt in prompts], device=device)
    tokens = torch.full((batch, count, max_new_tokens), eos, device=device)
    lengths = torch.zeros(batch, count, dtype=torch.int64, device=device)
    places = torch.arange(batch, device=device)  # in the block, of each prompt still in the batch
    samples = torch.arange(count, device=device).expand(batch, -1)  # sample index of each row
    alive = torch.ones_like(samples, dtype=torch.bool)
    nodes = torch.full_like(samples, ROOT)
    logits = policy.root_logits[:, None].expand(-1, count, -1)
    for step in block.steps(range(max_new_tokens)):
        drawn = inverse_cdf(logits, block.key.uniform(prompt_ids[places], samples, step))
        place = (places[:, None].expand_as(samples), samples)
        tokens[(*place, torch.full_like(samples, step))] = torch.where(alive, drawn, eos)
        lengths[place] += alive
        alive = alive & (drawn != eos)
        if step == max_new_tokens - 1:
            break
        if (step + 1) % COMPACT_EVERY == 0:
            growing, _ = look(alive)
            if not any(growing):
                break
            keep = unfinished(growing, device)
            policy.drop_prompts(keep)
            places, samples, alive, nodes, drawn = (x[keep] for x in (places, samples, alive, nodes, drawn))
            rows = true_first(alive, max(growing))
            samples, alive, drawn = take(samples, rows), take(alive, rows), take(drawn, rows)
            nodes = policy.compact(take(nodes, rows), room=rows.shape[1] * steps_ahead(step, max_new_tokens))
        extension = policy.extend(nodes, drawn, alive=alive, room=drawn.shape[1] * (steps_ahead(step, max_new_tokens) - 1))
        nodes, logits = extension.nodes, extension.logits
    return Samples(tokens, lengths, policy.ledger)


@dataclass(frozen=True)
class SampleCost:
    """Nominal cost of the first n samples and their verdicts, all [B, N], at index n − 1.

    Each unique token of the samples' trie counts once, as in every search: what two samples begin alike is paid once, and
    so is the verdict of two equal samples.
    """

    policy: np.ndarray  # FLOPs
    reward: np.ndarray  # FLOPs
    calls: np.ndarray

    @classmethod
    def of(cls, block: Block, samples: Samples) -> SampleCost:
        """Count the samples' trie, sample by sample."""
        models, prompts = block.models, block.prompts
        count, limit = samples.tokens.shape[1:]
        first = first_occurrence(samples.tokens) == torch.arange(count, device=samples.tokens.device)[:, None]
        new = first.cpu().numpy()  # [B, N, T] whether a token is not in the trie of the samples before
        lengths = samples.lengths.cpu().numpy()
        step = np.arange(limit)
        written = new & (step < lengths[..., None])
        fed = written & (step < lengths[..., None] - 1)  # the last token is not fed back
        distinct = np.take_along_axis(new, lengths[..., None] - 1, 2)[..., 0]
        policy, guard = ModelShape.from_config(models.policy.config), ModelShape.from_config(models.guard.config)
        policy_prompt = np.array([[len(prompt.policy_ids)] for prompt in prompts])
        guard_prompt = np.array([[len(prompt.guard_ids)] for prompt in prompts])
        suffix = len(models.formats.guard.suffix)
        verdict = np.vectorize(lambda start: guard.chain(int(start), suffix), otypes=[np.float64])(guard_prompt + lengths)
        return cls(
            policy=_chains(policy, policy_prompt) + _nodes(policy, policy_prompt, fed).cumsum(1),
            reward=_chains(guard, guard_prompt) + (_nodes(guard, guard_prompt, written) + verdict * distinct).cumsum(1),
            calls=distinct.cumsum(1),
        )


def _chains(shape: ModelShape, lengths: np.ndarray) -> np.ndarray:
    """FLOPs of prompts of these lengths."""
    return shape.nominal(lengths.astype(np.float64), lengths * (lengths + 1) / 2)


def _nodes(shape: ModelShape, prompt: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """FLOPs [B, N] of the counted tokens [B, N, T] after prompts of lengths [B, 1]."""
    context = ((prompt[..., None] + np.arange(counted.shape[2]) + 1) * counted).sum(2)
    return shape.nominal(counted.sum(2).astype(np.float64), context.astype(np.float64))
