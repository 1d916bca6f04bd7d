"""PRM beam search (Table 1): each beam node proposes its K most likely tokens, the PRM scores each, the best W stay."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from saffron.engine.trie import ROOT, TokenTrie
from saffron.methods.base import Block, Result
from saffron.methods.beam_search import Settings
from saffron.methods.frontier import (
    COMPACT_EVERY,
    Outputs,
    best_first,
    log_probabilities,
    look,
    most_likely,
    steps_ahead,
    take,
    unfinished,
)
from saffron.methods.repetition import Repeats, without
from saffron.methods.verdicts import Verdicts


@dataclass(frozen=True)
class Beam:
    """W sequences of each prompt in the batch."""

    tokens: Tensor  # int64 [B, W, T], EOS from the end of a sequence on
    rewards: Tensor  # float64 [B, W], -inf for entries that are not there
    scores: Tensor  # float64 [B, W], what entries are compared by: the reward, or more than it
    log_probability: Tensor  # float64 [B, W]
    growing: Tensor  # bool [B, W], there and not ended
    policy_nodes: Tensor  # int64 [B, W], the last token the policy has read
    guard_nodes: Tensor  # int64 [B, W]

    def select(self, keep: Tensor) -> Beam:
        """The beams of the prompts ``keep`` [B']."""
        return Beam(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})


@dataclass(frozen=True)
class Proposed:
    """What the policy proposes after each entry of a beam."""

    tokens: Tensor  # int64 [B, W, K]
    log_probability: Tensor  # float64 [B, W, K] of the whole sequence, under the policy
    allowed: Tensor  # bool [B, W, K]


def search(block: Block, settings: Settings, budget: int) -> list[Result]:
    """PRM beam search; the budget is the width W. Finished sequences compete for their place with the score they have."""
    models, prompts, max_new_tokens = block.models, block.prompts, block.max_new_tokens
    width, children, eos = budget, settings.children, models.formats.eos_id
    policy = TokenTrie(models.policy, [prompt.policy_ids for prompt in prompts])
    room = width * children * steps_ahead(-1, max_new_tokens)
    verdicts = Verdicts(models.guard, models.formats, [prompt.guard_ids for prompt in prompts], room=room)
    outputs = Outputs(policy, verdicts, max_new_tokens)
    size = settings.no_repeat_ngram_size
    repeats = Repeats([prompt.policy_ids for prompt in prompts], size, policy.device) if size else None
    assert policy.root_logits is not None
    beam = _root(policy, width, max_new_tokens, eos)
    logits = policy.root_logits[:, None].expand(-1, width, -1)
    for step in block.steps(range(max_new_tokens)):
        repeating = None if repeats is None else repeats.after(beam.tokens[..., :step], logits.shape[-1])
        beam = _step(beam, _propose(logits, beam, children, repeating), verdicts, step, eos, settings.likelihood_weight)
        if step == max_new_tokens - 1:
            break
        if (step + 1) % COMPACT_EVERY == 0:
            outputs.write(beam.tokens, beam.scores, beam.rewards)
            tries = ((policy, beam.policy_nodes), (verdicts.trie, beam.guard_nodes))
            growing, live = look(beam.growing, *(trie.live_nodes(nodes, beam.growing) for trie, nodes in tries))
            keep = unfinished(growing, policy.device)
            outputs.drop_prompts(keep)
            if repeats is not None:
                repeats.drop_prompts(keep)
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
    outputs.write(beam.tokens, beam.scores, beam.rewards)
    return outputs.results(prompts, width, eos)


def _root(policy: TokenTrie, width: int, max_new_tokens: int, eos: int) -> Beam:
    """A beam with one entry, the prompt."""
    size = (policy.batch, width)
    rewards = torch.full(size, -torch.inf, dtype=torch.float64, device=policy.device)
    rewards[:, 0] = 0
    nodes = torch.full(size, ROOT, device=policy.device)
    return Beam(
        tokens=torch.full((*size, max_new_tokens), eos, device=policy.device),
        rewards=rewards,
        scores=rewards,
        log_probability=torch.zeros_like(rewards),
        growing=rewards == 0,
        policy_nodes=nodes,
        guard_nodes=nodes,
    )


def _propose(logits: Tensor, beam: Beam, children: int, repeating: Tensor | None) -> Proposed:
    """The most likely tokens by logits [B, W, V], ``repeating`` [B, W, V] bool ones only where nothing else is left."""
    if repeating is None:
        tokens, last = most_likely(logits, children)
        allowed = torch.ones_like(tokens, dtype=torch.bool)
    else:
        open_logits = without(logits, repeating)
        tokens, _ = most_likely(open_logits, children)
        last, allowed = log_probabilities(logits, tokens), open_logits.gather(-1, tokens) > -torch.inf
    return Proposed(tokens, beam.log_probability[..., None] + last, allowed)


def _step(beam: Beam, proposed: Proposed, verdicts: Verdicts, step: int, eos: int, likelihood_weight: float) -> Beam:
    """Score the proposed tokens and select; ``policy_nodes`` are then the parents of the new last tokens."""
    batch, width, children = proposed.tokens.shape
    asked = beam.growing[..., None] & proposed.allowed
    nodes, rewards = verdicts.read(
        beam.guard_nodes.repeat_interleave(children, 1),
        proposed.tokens.reshape(batch, -1, 1),
        alive=asked.reshape(batch, -1),
        commit=1,
    )
    rewards = _stand(torch.where(asked, rewards.view(batch, width, children), -torch.inf), beam.rewards, beam.growing)
    scores, log_probability = rewards, beam.log_probability[..., None].expand(-1, -1, children)
    if likelihood_weight:
        log_probability = _stand(proposed.log_probability, beam.log_probability, beam.growing)
        scores = _stand(rewards + likelihood_weight * log_probability, beam.scores, beam.growing)
    order = best_first(scores.reshape(batch, -1))[:, :width]
    parent = order // children
    chosen = take(scores.reshape(batch, -1), order)
    grown = take(beam.growing, parent)
    last = torch.where(grown, take(proposed.tokens.reshape(batch, -1), order), eos)
    tokens = take(beam.tokens, parent)
    tokens[..., step] = last
    return Beam(
        tokens=tokens,
        rewards=take(rewards.reshape(batch, -1), order),
        scores=chosen,
        log_probability=take(log_probability.reshape(batch, -1), order),
        growing=grown & (last != eos) & (chosen > -torch.inf),
        policy_nodes=take(beam.policy_nodes, parent),
        guard_nodes=take(nodes[..., 0], order),
    )


def _stand(children: Tensor, own: Tensor, growing: Tensor) -> Tensor:
    """Values [B, W, K] of children, the first of a finished sequence being its own value [B, W]: it stands for itself."""
    first = torch.where(growing, children[..., 0], own)
    return torch.cat([first[..., None], children[..., 1:]], -1)
