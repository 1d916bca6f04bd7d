"""Independent samples of a block, and what they cost: Best-of-N's, of which no defense takes the first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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

    @cached_property
    def host_lengths(self) -> np.ndarray:
        """``lengths``, read once whatever is counted."""
        return self.lengths.cpu().numpy()

    @cached_property
    def new(self) -> np.ndarray:
        """bool [B, N, T]: whether a token is not in the trie of the samples before; found once whatever is counted."""
        count = self.tokens.shape[1]
        first = first_occurrence(self.tokens) == torch.arange(count, device=self.tokens.device)[:, None]
        return first.cpu().numpy()


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


def policy_flops(block: Block, samples: Samples) -> np.ndarray:
    """Nominal FLOPs [B, N] of drawing the first n samples, at index n − 1.

    Each unique token of the samples' trie counts once, as in every search: what two samples begin alike is paid once.
    """
    shape = ModelShape.from_config(block.models.policy.config)
    prompt = np.array([[len(prompt.policy_ids)] for prompt in block.prompts])
    step = np.arange(samples.tokens.shape[2])
    fed = samples.new & (step < samples.host_lengths[..., None] - 1)  # the last token is not fed back
    return _chains(shape, prompt) + _nodes(shape, prompt, fed).cumsum(1)


@dataclass(frozen=True)
class VerdictCost:
    """Nominal cost of the verdicts of the first n samples, all [B, N], at index n − 1; that of two equal samples is paid once."""

    flops: np.ndarray
    calls: np.ndarray

    @classmethod
    def of(cls, guard: ModelShape, block: Block, samples: Samples) -> VerdictCost:
        """Count the samples' trie, sample by sample."""
        prompt = np.array([[len(prompt.guard_ids)] for prompt in block.prompts])
        new, lengths = samples.new, samples.host_lengths
        written = new & (np.arange(samples.tokens.shape[2]) < lengths[..., None])
        distinct = np.take_along_axis(new, lengths[..., None] - 1, 2)[..., 0]
        suffix = len(block.models.formats.guard.suffix)
        verdict = np.vectorize(lambda start: guard.chain(int(start), suffix), otypes=[np.float64])(prompt + lengths)
        flops = _chains(guard, prompt) + (_nodes(guard, prompt, written) + verdict * distinct).cumsum(1)
        return cls(flops=flops, calls=distinct.cumsum(1))


def _chains(shape: ModelShape, lengths: np.ndarray) -> np.ndarray:
    """FLOPs of prompts of these lengths."""
    return shape.nominal(lengths.astype(np.float64), lengths * (lengths + 1) / 2)


def _nodes(shape: ModelShape, prompt: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """FLOPs [B, N] of the counted tokens [B, N, T] after prompts of lengths [B, 1]."""
    context = ((prompt[..., None] + np.arange(counted.shape[2]) + 1) * counted).sum(2)
    return shape.nominal(counted.sum(2).astype(np.float64), context.astype(np.float64))
