"""DeAL with lookahead (Huang et al. 2024, arXiv 2402.06147; Snell et al. 2024, arXiv 2408.03314): Table 1's MCTS.

Beam search whose candidates are scored after a greedy rollout: score = log P(candidate) + λ · R(candidate + rollout). With
lookahead 0 no rollout is made. Rollouts stay in the tries: the most likely child of a beam node is the first token of that
node's rollout, so its own rollout is the same one and one token more, and its verdict needs that one token only (none, if
the rollout had ended).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from saffron.engine.trie import ROOT, TokenTrie
from saffron.methods.base import Block, Result
from saffron.methods.deal import Settings
from saffron.methods.frontier import COMPACT_EVERY, Outputs, best_first, look, most_likely, steps_ahead, take, unfinished
from saffron.methods.verdicts import Verdicts


@dataclass(frozen=True)
class Entries:
    """Sequences and their rollouts, R per prompt: a beam (R = W) or its candidates (R = W · K).

    With D = max(1, lookahead): place 0 of the policy's part is the sequence's last token, place i its i-th rollout token.
    """

    tokens: Tensor  # int64 [B, R, T], EOS from the end of a sequence on
    log_probability: Tensor  # float64 [B, R]
    rewards: Tensor  # float64 [B, R], R of sequence + rollout
    scores: Tensor  # float64 [B, R], -inf for entries that are not there
    growing: Tensor  # bool [B, R], there and not ended
    ahead: Tensor  # int64 [B, R, D] rollout tokens
    complete: Tensor  # bool [B, R], the rollout ended or reached the token limit
    policy_nodes: Tensor  # int64 [B, R, D]
    guard_nodes: Tensor  # int64 [B, R, D + 1]
    next_tokens: Tensor  # int64 [B, R, D, K] most likely next tokens
    next_log_probabilities: Tensor  # float64 [B, R, D, K]

    def select(self, keep: Tensor) -> Entries:
        """The entries of the prompts ``keep`` [B']."""
        return self._map(lambda field: field[keep])

    def take(self, index: Tensor) -> Entries:
        """The entries at index [B, R']."""
        return self._map(lambda field: take(field, index))

    def _map(self, function: Callable[[Tensor], Tensor]) -> Entries:
        return Entries(**{field.name: function(getattr(self, field.name)) for field in fields(self)})


def search(block: Block, settings: Settings, budget: int) -> list[Result]:
    """DeAL; the budget is the beam width W. Finished sequences compete for their place with the score they have."""
    return _Search(block, settings, budget).run()


class _Search:
    """One search of a block at one width."""

    def __init__(self, block: Block, settings: Settings, width: int) -> None:
        models, prompts, max_new_tokens = block.models, block.prompts, block.max_new_tokens
        self.prompts, self.settings, self.width, self.limit = prompts, settings, width, max_new_tokens
        self.steps = block.steps
        self.eos = models.formats.eos_id
        self.depth = max(1, settings.lookahead)
        self.children = min(settings.children, models.policy.config.vocab_size)
        policy_room, guard_room = self._room(-1)
        self.policy = TokenTrie(models.policy, [prompt.policy_ids for prompt in prompts], room=policy_room)
        self.verdicts = Verdicts(models.guard, models.formats, [prompt.guard_ids for prompt in prompts], room=guard_room)
        self.outputs = Outputs(self.policy, self.verdicts, max_new_tokens)

    def run(self) -> list[Result]:
        beam = self._root()
        for step in self.steps(range(self.limit)):
            candidates = self._candidates(beam, step)
            order = best_first(candidates.scores)[:, : self.width]
            beam = candidates.take(order)
            if step == self.limit - 1:
                break
            if (step + 1) % COMPACT_EVERY == 0:
                self.outputs.write(beam.tokens, beam.scores, beam.rewards)
                growing, live = look(beam.growing, *(trie.live_nodes(*_kept(beam, nodes)) for trie, nodes in self._tries(beam)))
                keep = unfinished(growing, self.policy.device)
                self.outputs.drop_prompts(keep)
                beam = beam.select(keep)
                if not len(keep):
                    break
                beam = self._compact(beam, live, step)
            if self.settings.lookahead == 0:
                beam = self._feed_beam(beam, step)
        self.outputs.write(beam.tokens, beam.scores, beam.rewards)
        return self.outputs.results(self.prompts, self.width, self.eos)

    def _root(self) -> Entries:
        """A beam with one entry, the prompt."""
        policy, size, depth = self.policy, (self.policy.batch, self.width), self.depth
        assert policy.root_logits is not None
        whole = torch.zeros(size, dtype=torch.int64, device=policy.device)
        real = whole.double()
        there = (torch.arange(self.width, device=policy.device) == 0).expand(size)
        tokens, log_probabilities = most_likely(policy.root_logits, self.children)
        shape = (*size, depth, self.children)
        return Entries(
            tokens=torch.full((*size, self.limit), self.eos, device=policy.device),
            log_probability=real,
            rewards=real,
            scores=torch.where(there, 0.0, -torch.inf).double(),
            growing=there,
            ahead=torch.zeros((*size, depth), dtype=torch.int64, device=policy.device),
            complete=~there,
            policy_nodes=torch.full((*size, depth), ROOT, device=policy.device),
            guard_nodes=torch.full((*size, depth + 1), ROOT, device=policy.device),
            next_tokens=tokens[:, None, None].expand(shape),
            next_log_probabilities=log_probabilities[:, None, None].expand(shape),
        )

    def _candidates(self, beam: Entries, step: int) -> Entries:
        """All children of the beam with rollout and score; a finished sequence stands for itself."""
        batch, width, children, lookahead = self.policy.batch, self.width, self.children, self.settings.lookahead
        # The prompt has no rollout, and without lookahead there is none, so then every child is new.
        reused = 1 if step > 0 and lookahead > 0 else 0
        proposed = beam.next_tokens[:, :, 0]  # [B, W, K]
        asked = beam.growing[..., None].expand(-1, -1, children)
        complete = ~asked | (proposed == self.eos) | (step + 1 == self.limit)

        # Per child: rollout, nodes and next tokens. Child 0 inherits its parent's, one place on.
        ahead = _shift(beam.ahead)[:, :, None].repeat(1, 1, children, 1)
        policy_nodes = _shift(beam.policy_nodes)[:, :, None].repeat(1, 1, children, 1)
        guard_nodes = _shift(beam.guard_nodes)[:, :, None].repeat(1, 1, children, 1)
        next_tokens = _shift(beam.next_tokens)[:, :, None].repeat(1, 1, children, 1, 1)
        next_log_probabilities = _shift(beam.next_log_probabilities)[:, :, None].repeat(1, 1, children, 1, 1)
        if reused:
            complete[:, :, 0] = beam.complete
        known = complete[:, :, 0].clone()  # a reused rollout that was complete has its verdict already

        counts = asked.long()  # tokens of child + rollout
        rounds = min(lookahead, self.limit - step - 1)
        for i in range(rounds):
            # A reused rollout is fed its last token only, in the last round.
            first = reused if i < lookahead - 1 else 0
            if first == children:
                continue
            feed = ~complete[:, :, first:]
            token = (proposed if i == 0 else ahead[..., i - 1])[:, :, first:]
            parent = (beam.policy_nodes[:, :, :1].expand(-1, -1, children) if i == 0 else policy_nodes[..., i - 1])[:, :, first:]
            if reused and first == 0:
                token = torch.cat([beam.ahead[:, :, -1:], token[:, :, 1:]], 2)
                parent = torch.cat([beam.policy_nodes[:, :, -1:], parent[:, :, 1:]], 2)
            flat = (batch, feed.shape[1] * feed.shape[2])
            extension = self.policy.extend(parent.reshape(flat), token.reshape(flat), alive=feed.reshape(flat))
            tokens, log_probabilities = most_likely(extension.logits, children)
            tokens, log_probabilities = tokens.view(*feed.shape, children), log_probabilities.view(*feed.shape, children)
            policy_nodes[:, :, first:, i] = extension.nodes.view(feed.shape)
            next_tokens[:, :, first:, i], next_log_probabilities[:, :, first:, i] = tokens, log_probabilities
            ahead[:, :, first:, i] = tokens[..., 0]
            counts[:, :, first:] += feed
            complete[:, :, first:] |= feed & ((tokens[..., 0] == self.eos) | (step + 2 + i == self.limit))

        rewards = beam.rewards[..., None].repeat(1, 1, children)
        if reused:
            told = ~known & beam.growing
            nodes, verdict = self.verdicts.read(beam.guard_nodes[..., -1], ahead[:, :, 0, -1:], alive=told, commit=1)
            guard_nodes[:, :, 0, lookahead] = nodes[..., 0]
            rewards[:, :, 0] = torch.where(told, verdict, beam.rewards)
        flat = (batch, width * (children - reused))
        if flat[1]:
            chain = torch.cat([proposed[..., None], ahead[..., :rounds]], -1)[:, :, reused:].reshape(*flat, rounds + 1)
            new = asked[:, :, reused:]
            nodes, verdict = self.verdicts.read(
                beam.guard_nodes[:, :, :1].expand(-1, -1, children - reused).reshape(flat),
                chain,
                lengths=counts[:, :, reused:].reshape(flat).clamp(min=1),
                alive=new.reshape(flat),
                commit=rounds + 1,
            )
            guard_nodes[:, :, reused:, : rounds + 1] = nodes.view(*new.shape, rounds + 1)
            rewards[:, :, reused:] = torch.where(new, verdict.view(new.shape), rewards[:, :, reused:])

        log_probability = beam.log_probability[..., None] + torch.where(asked, beam.next_log_probabilities[:, :, 0], 0.0)
        scores = torch.where(asked, log_probability + self.settings.reward_weight * rewards, -torch.inf)
        scores[:, :, 0] = torch.where(beam.growing, scores[:, :, 0], beam.scores)
        sequences = beam.tokens[:, :, None].repeat(1, 1, children, 1)
        sequences[..., step] = torch.where(asked, proposed, self.eos)
        return Entries(
            tokens=sequences,
            log_probability=log_probability,
            rewards=rewards,
            scores=scores,
            growing=asked & (proposed != self.eos),
            ahead=ahead,
            complete=complete,
            policy_nodes=policy_nodes,
            guard_nodes=guard_nodes,
            next_tokens=next_tokens,
            next_log_probabilities=next_log_probabilities,
        )._map(lambda field: field.flatten(1, 2))

    def _feed_beam(self, beam: Entries, step: int) -> Entries:
        """Without lookahead only what stays in the beam is read by the policy."""
        extension = self.policy.extend(beam.policy_nodes[..., 0], beam.tokens[..., step], alive=beam.growing)
        tokens, log_probabilities = most_likely(extension.logits, self.children)
        return replace(
            beam,
            policy_nodes=extension.nodes[..., None],
            next_tokens=tokens[:, :, None],
            next_log_probabilities=log_probabilities[:, :, None],
        )

    def _tries(self, beam: Entries) -> list[tuple[TokenTrie, Tensor]]:
        return [(self.policy, beam.policy_nodes), (self.verdicts.trie, beam.guard_nodes)]

    def _room(self, step: int) -> tuple[int, int]:
        """Nodes per prompt that policy and guard read after ``step`` up to the next compaction, if no rollout ends early."""
        steps = steps_ahead(step, self.limit)
        reused = 1 if step >= 0 and self.settings.lookahead else 0  # read again for its last token only
        chains = self.width * (self.children - reused) * steps
        last = self.width * reused * steps
        return chains * self.depth + last, chains * (self.settings.lookahead + 1) + last

    def _compact(self, beam: Entries, live_nodes: list[int], step: int) -> Entries:
        """Drop what no beam sequence or its rollout needs; ``live_nodes`` of policy and guard."""
        policy_nodes, guard_nodes = (
            trie.compact(*_kept(beam, nodes), room=room, live_nodes=live).view(nodes.shape)
            for (trie, nodes), live, room in zip(self._tries(beam), live_nodes, self._room(step), strict=True)
        )
        return replace(beam, policy_nodes=policy_nodes, guard_nodes=guard_nodes)


def _kept(beam: Entries, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes [B, R, D] of the beam as [B, R * D], and which of them belong to sequences that go on."""
    return nodes.flatten(1, 2), beam.growing[..., None].expand_as(nodes).flatten(1, 2)


def _shift(places: Tensor) -> Tensor:
    """Places of a sequence's most likely child: one on, the last repeated as filler."""
    return torch.cat([places[:, :, 1:], places[:, :, -1:]], 2)
