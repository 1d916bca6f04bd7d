"""Rebase: reward-balanced search (Wu et al. 2025, arXiv 2408.00724, section 3.1.2 and appendix C).

A budget of N samples is spread over the nodes of a front in proportion to a softmax of their rewards; each sample adds up to
``step_tokens`` tokens; a sequence that ends, or reaches the token limit, is a leaf and takes one from the budget. The answer
is the leaf with the highest reward.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saffron.engine.trie import ROOT, TokenTrie
from saffron.methods.base import Block, Result
from saffron.methods.frontier import COMPACT_EVERY, Chosen, Outputs, best_first, first_occurrence, look, take, unfinished
from saffron.methods.random import inverse_cdf
from saffron.methods.rebase import Settings
from saffron.methods.verdicts import Verdicts

#: A share this close to a rounding edge is on it: equal rewards split a budget evenly whatever the last bits say.
_EDGE = 1e-9


def search(block: Block, settings: Settings, budget: int) -> list[Result]:
    """Rebase; the budget is the number of samples N."""
    models, prompts, key, max_new_tokens = block.models, block.prompts, block.key, block.max_new_tokens
    eos = models.formats.eos_id
    most = 1 if settings.widths == "release" else 2  # rounding to nearest may double a budget
    rows = most * budget
    look_every = -(-COMPACT_EVERY // settings.step_tokens) * settings.step_tokens  # tokens, whole rounds
    policy = TokenTrie(models.policy, [prompt.policy_ids for prompt in prompts])
    verdicts = Verdicts(models.guard, models.formats, [prompt.guard_ids for prompt in prompts])
    outputs = Outputs(policy, verdicts, max_new_tokens)
    assert policy.root_logits is not None
    batch, device = policy.batch, policy.device

    prompt_ids = torch.tensor([[prompt.prompt_id] for prompt in prompts], device=device)
    left = torch.full((batch,), budget, device=device)
    alive = torch.arange(rows, device=device).expand(batch, -1) < budget
    tokens = torch.full((batch, rows, max_new_tokens), eos, device=device)
    logits = policy.root_logits[:, None].expand(-1, rows, -1)
    policy_nodes = guard_nodes = torch.full((batch, rows), ROOT, device=device)
    leaf_tokens, leaf_rewards = tokens[:, 0], torch.full((batch,), -torch.inf, dtype=torch.float64, device=device)

    for start in block.steps(range(0, max_new_tokens, settings.step_tokens)):
        # propose: each row samples up to step_tokens tokens
        stop = min(start + settings.step_tokens, max_new_tokens)
        growing, counts = alive, torch.zeros_like(policy_nodes)
        for step in range(start, stop):
            drawn = inverse_cdf(logits, key.uniform(prompt_ids, torch.arange(rows, device=device), step))
            tokens[..., step] = torch.where(growing, drawn, eos)
            counts = counts + growing
            growing = growing & (drawn != eos)
            if step < stop - 1:
                extension = policy.extend(policy_nodes, drawn, alive=growing)
                policy_nodes, logits = extension.nodes, extension.logits
        # score: a sequence that several rows spell is read once
        twin = take_last(first_occurrence(tokens[..., :stop]), start + counts)
        read = Chosen.of(alive & (twin == torch.arange(rows, device=device)))
        nodes, verdict = verdicts.read(
            take(guard_nodes, read.index),
            take(tokens[..., start:stop], read.index),
            lengths=take(counts, read.index).clamp(min=1),
            alive=read.alive,
            commit=stop - start,
            room=read.index.shape[1] * (_until_look(start, look_every, max_new_tokens) - (stop - start)),
        )
        twin = take(read.place, twin)
        guard_nodes, rewards = take(nodes[..., -1], twin), take(verdict, twin)
        # select: leaves leave, the others share what is left of the budget
        growing = growing & (stop < max_new_tokens)
        leaves = torch.where(alive & ~growing, rewards, -torch.inf)
        best = best_first(leaves)[:, :1]
        better = take(leaves, best)[:, 0] > leaf_rewards
        leaf_rewards = torch.where(better, take(leaves, best)[:, 0], leaf_rewards)
        leaf_tokens = torch.where(better[:, None], take(tokens, best)[:, 0], leaf_tokens)
        left = left - (alive & ~growing).sum(1)
        if stop == max_new_tokens:
            break
        front, widths = balance(rewards, growing, left, settings)
        policy_nodes, guard_nodes, tokens = (take(entries, front) for entries in (policy_nodes, guard_nodes, tokens))
        if stop % look_every == 0:
            outputs.write(leaf_tokens[:, None], leaf_rewards[:, None], leaf_rewards[:, None])
            tries = ((policy, policy_nodes), (verdicts.trie, guard_nodes))
            wanted, numbers = look(widths > 0, *(trie.live_nodes(kept, widths > 0) for trie, kept in tries), left.amax())
            keep = unfinished(wanted, device)
            outputs.drop_prompts(keep)
            if not len(keep):
                leaf_tokens, leaf_rewards = leaf_tokens[keep], leaf_rewards[keep]
                break
            state = (prompt_ids, left, leaf_tokens, leaf_rewards, policy_nodes, guard_nodes, tokens, widths)
            prompt_ids, left, leaf_tokens, leaf_rewards, *fronts = (x[keep] for x in state)
            policy_nodes, guard_nodes, tokens, widths = (x[:, : max(wanted)] for x in fronts)
            policy_live, guard_live, samples = numbers
            rows = most * samples
            policy_nodes = policy.compact(policy_nodes, widths > 0, live_nodes=policy_live)
            guard_nodes = verdicts.trie.compact(guard_nodes, widths > 0, live_nodes=guard_live)
        twin = first_occurrence(tokens[..., :stop])[..., -1]
        read = Chosen.of((widths > 0) & (twin == torch.arange(twin.shape[1], device=device)))
        extension = policy.extend(
            take(policy_nodes, read.index),
            take(tokens[..., stop - 1], read.index),
            alive=read.alive,
            room=read.index.shape[1] * (_until_look(stop, look_every, max_new_tokens) - 1),
        )
        source, alive = spread(widths, rows)
        tokens, guard_nodes, twin = take(tokens, source), take(guard_nodes, source), take(take(read.place, twin), source)
        policy_nodes, logits = take(extension.nodes, twin), take(extension.logits, twin)
    outputs.write(leaf_tokens[:, None], leaf_rewards[:, None], leaf_rewards[:, None])
    return outputs.results(prompts, budget, eos)


def _until_look(written: int, look_every: int, max_new_tokens: int) -> int:
    """Tokens of a row between the first ``written`` and the next look, or the end."""
    return min(look_every - written % look_every, max_new_tokens - written)


def take_last(entries: Tensor, lengths: Tensor) -> Tensor:
    """``entries[b, r, lengths[b, r] - 1]`` of entries [B, R, T]."""
    return entries.gather(2, (lengths - 1).clamp(min=0)[..., None])[..., 0]


def balance(rewards: Tensor, live: Tensor, left: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Share the budget over the live nodes.

    ``release`` goes through the nodes from the best on and rounds up, never above what is left; ``paper`` rounds each share to
    the nearest integer (half to even), and gives the best node one child if every share rounds to zero.

    Args:
        rewards: float64 [B, R].
        live: bool [B, R].
        left: int64 [B], budget.

    Returns:
        Nodes [B, R], best first, and the number of children of each, both int64.
    """
    order = best_first(torch.where(live, rewards, -torch.inf))
    there = take(live, order) & (left > 0)[:, None]
    values = take(rewards, order)
    values = values.sigmoid() if settings.weights == "sigmoid" else values
    e = torch.where(there, ((values - values[:, :1]) / settings.balance_temperature).exp(), 0.0)
    total = e.sum(1)
    if settings.widths == "paper":
        shares = left[:, None] * e / total[:, None].clamp(min=torch.finfo(e.dtype).tiny)
        halves = (2 * shares).round()
        shares = torch.where((2 * shares - halves).abs() < 2 * _EDGE, halves / 2, shares)
        widths = shares.round().long()
        widths[:, 0] += there[:, 0] & (widths.sum(1) == 0)
        return order, widths
    columns = []
    rest = left.clamp(min=0)
    for k in range(e.shape[1]):
        share = rest * e[:, k] / total.clamp(min=torch.finfo(e.dtype).tiny)
        width = torch.minimum((share - _EDGE).ceil().long().clamp(min=0), rest)
        columns.append(width)
        rest, total = rest - width, total - e[:, k]
    return order, torch.stack(columns, 1)


def spread(widths: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Rows of the next front: each node [B, R] as often as it has children, in order.

    Returns:
        int64 [B, rows] the node behind each row, and bool [B, rows] whether the row is used.
    """
    ends = widths.cumsum(1)
    row = torch.arange(rows, device=widths.device).expand(len(widths), -1).contiguous()
    return torch.searchsorted(ends, row, right=True).clamp(max=widths.shape[1] - 1), row < ends[:, -1:]
