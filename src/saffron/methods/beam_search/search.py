"""PRM beam search (Table 1): each beam node proposes its K most likely tokens, the PRM scores each, the best W stay."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saffron.engine.trie import ROOT, TokenTrie
from saffron.methods.base import Block, Result
from saffron.methods.beam_search import Settings
from saffron.methods.frontier import COMPACT_EVERY, Outputs, best_first, look, most_likely, steps_ahead, take, unfinished
from saffron.methods.verdicts import Verdicts


@dataclass(frozen=True)
class Beam:
    """W sequences of each prompt in the batch."""

    tokens: Tensor  # int64 [B, W, T], EOS from the end of a sequence on
    rewards: Tensor  # float64 [B, W], -inf for entries that are not there
    growing: Tensor  # bool [B, W], there and not ended
    policy_nodes: Tensor  # int64 [B, W], the last token the policy has read
    guard_nodes: Tensor  # int64 [B, W]

    def select(self, keep: Tensor) -> Beam:
        """The beams of the prompts ``keep`` [B']."""
        return Beam(self.tokens[keep], self.rewards[keep], self.growing[keep], self.policy_nodes[keep], self.guard_nodes[keep])


def search(block: Block, settings: Settings, budget: int) -> list[Result]:
    """PRM beam search; the budget is the width W. Finished sequences compete for their place with the reward they have."""
    models, prompts, max_new_tokens = block.models, block.prompts, block.max_new_tokens
    width, children, eos = budget, settings.children, models.formats.eos_id
    policy = TokenTrie(models.policy, [prompt.policy_ids for prompt in prompts])
    room = width * children * steps_ahead(-1, max_new_tokens)
    verdicts = Verdicts(models.guard, models.formats, [prompt.guard_ids for prompt in prompts], room=room)
    outputs = Outputs(policy, verdicts, max_new_tokens)
    assert policy.root_logits is not None
    beam = _root(policy, width, max_new_tokens, eos)
    logits = policy.root_logits[:, None].expand(-1, width, -1)
    for step in block.steps(range(max_new_tokens)):
        proposed, _ = most_likely(logits, children)
        beam = _step(beam, proposed, verdicts, step, eos)
        if step == max_new_tokens - 1:
            break
        if (step + 1) % COMPACT_EVERY == 0:
            outputs.write(beam.tokens, beam.rewards, beam.rewards)
            tries = ((policy, beam.policy_nodes), (verdicts.trie, beam.guard_nodes))
            growing, live = look(beam.growing, *(trie.live_nodes(nodes, beam.growing) for trie, nodes in tries))
            keep = unfinished(growing, policy.device)
            outputs.drop_prompts(keep)
            beam = beam.select(keep)
            if not len(keep):
                break
            room = width * steps_ahead(step, max_new_tokens)
            beam = replace(
                beam,
                policy_nodes=policy.compact(beam.policy_nodes, beam.growing, room=room, live_nodes=live[0]),
                guard_nodes=verdicts.trie.compact(beam.guard_nodes, beam.growing, room=room * children, live_nodes=live[1]),
            )
        room = width * (steps_ahead(step, max_new_tokens) - 1)
        extension = policy.extend(beam.policy_nodes, beam.tokens[..., step], alive=beam.growing, room=room)
        beam, logits = replace(beam, policy_nodes=extension.nodes), extension.logits
    outputs.write(beam.tokens, beam.rewards, beam.rewards)
    return outputs.results(prompts, width, eos)


def _root(policy: TokenTrie, width: int, max_new_tokens: int, eos: int) -> Beam:
    """A beam with one entry, the prompt."""
    size = (policy.batch, width)
    rewards = torch.full(size, -torch.inf, dtype=torch.float64, device=policy.device)
    rewards[:, 0] = 0
    nodes = torch.full(size, ROOT, device=policy.device)
    return Beam(torch.full((*size, max_new_tokens), eos, device=policy.device), rewards, rewards == 0, nodes, nodes)


def _step(beam: Beam, proposed: Tensor, verdicts: Verdicts, step: int, eos: int) -> Beam:
    """Score the proposed tokens [B, W, K] and select; ``policy_nodes`` are then the parents of the new last tokens."""
    batch, width, children = proposed.shape
    asked = beam.growing[..., None].expand(-1, -1, children)
    nodes, rewards = verdicts.read(
        beam.guard_nodes.repeat_interleave(children, 1),
        proposed.reshape(batch, -1, 1),
        alive=asked.reshape(batch, -1),
        commit=1,
    )
    pool = torch.where(asked, rewards.view(batch, width, children), -torch.inf)
    pool[..., 0] = torch.where(beam.growing, pool[..., 0], beam.rewards)  # a finished sequence stands for itself
    pool = pool.view(batch, -1)
    order = best_first(pool)[:, :width]
    parent = order // children
    chosen = take(pool, order)
    grown = take(beam.growing, parent)
    last = torch.where(grown, take(proposed.reshape(batch, -1), order), eos)
    tokens = take(beam.tokens, parent)
    tokens[..., step] = last
    return Beam(
        tokens=tokens,
        rewards=chosen,
        growing=grown & (last != eos) & (chosen > -torch.inf),
        policy_nodes=take(beam.policy_nodes, parent),
        guard_nodes=take(nodes[..., 0], order),
    )
