"""Archive search: Saffron-1's beam over an MRM, which returns to candidates that it has let go, and explores from there.

Every candidate that is scored and does not enter the beam goes to an archive, which keeps the best. Once all places of the
beam have ended, the best archived candidates fill it, and the search goes on from them; so often as ``returns`` says. The
parents of archived candidates stay in both tries, so going back reads nothing again. The answer is the best of all that the
beam has held when its places had ended. Without returns it is Saffron-1 (semantics ``paper``).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import isfinite

import torch
from torch import Tensor

from saffron.engine.trie import ROOT, TokenTrie
from saffron.methods import frontier
from saffron.methods.archive_search import Settings
from saffron.methods.base import Block, MethodError, Result
from saffron.methods.frontier import COMPACT_EVERY, look, take, unfinished
from saffron.methods.saffron.algorithm import Beam, Rows, select
from saffron.methods.saffron.selection import UNSEEN_REWARD, Best, best_dense, nuclei, probabilities, refuse_undefined, undefined


@dataclass(frozen=True)
class Places:
    """Sequences, best first, and what their last token is read after: the nodes of both tries."""

    beam: Beam  # [B, N]
    policy: Tensor  # int64 [B, N]
    mrm: Tensor  # int64 [B, N]

    def of(self, keep: Tensor) -> Places:
        """Those of some prompts [B']."""
        return Places(self.beam.of(keep), self.policy[keep], self.mrm[keep])

    def take(self, index: Tensor) -> Places:
        """The places at index [B, N']."""
        beam = Beam(**{field.name: take(getattr(self.beam, field.name), index) for field in fields(Beam)})
        return Places(beam, take(self.policy, index), take(self.mrm, index))

    def beside(self, others: Places) -> Places:
        """These places, then the others."""
        joined = {f.name: torch.cat([getattr(self.beam, f.name), getattr(others.beam, f.name)], 1) for f in fields(Beam)}
        return Places(Beam(**joined), torch.cat([self.policy, others.policy], 1), torch.cat([self.mrm, others.mrm], 1))

    def best(self, count: int) -> Places:
        """The ``count`` taken places of the highest reward, ties in order."""
        rewards = self.beam.reward.masked_fill(~self.beam.valid, -torch.inf)
        order = rewards.argsort(dim=1, descending=True, stable=True)
        taken = take(self.beam.valid, order)
        return self.take(order.gather(1, (~taken).to(torch.uint8).argsort(dim=1, stable=True))[:, :count])

    def only(self, valid: Tensor) -> Places:
        """With other places [B, N] empty."""
        return replace(self, beam=replace(self.beam, valid=self.beam.valid & valid))

    def where(self, condition: Tensor, others: Places) -> Places:
        """Those of the prompts [B] that fulfil the condition, the others' elsewhere."""

        def chosen(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(condition.view(-1, *(1 for _ in mine.shape[1:])), mine, theirs)

        beam = Beam(**{f.name: chosen(getattr(self.beam, f.name), getattr(others.beam, f.name)) for f in fields(Beam)})
        return Places(beam, chosen(self.policy, others.policy), chosen(self.mrm, others.mrm))


def search(block: Block, settings: Settings, budget: int) -> list[Result]:
    """Archive search; the budget is the beam width N. Draws nothing at random."""
    return _Search(block, settings, budget).run(block)


class _Search:
    """One search of a block at one width."""

    def __init__(self, block: Block, settings: Settings, width: int) -> None:
        models, prompts = block.models, block.prompts
        if models.mrm is None:
            raise MethodError("archive_search needs an MRM; train one (stage mrm)")
        self.settings, self.width, self.limit = settings, width, block.max_new_tokens
        self.eos = models.formats.eos_id
        self.policy = TokenTrie(models.policy, [prompt.policy_ids for prompt in prompts])
        self.mrm = TokenTrie(models.mrm, [prompt.mrm_ids for prompt in prompts])
        self.unseen = None if models.unseen is None or not settings.conservative else models.unseen.clone()
        if self.unseen is not None:
            self.unseen[self.eos] = False  # counts as seen, as in Saffron-1 by default
        device, batch = self.policy.device, len(prompts)
        self.index = torch.arange(batch, device=device)  # place in the block of each prompt still in the batch
        self.returns = torch.full((batch,), settings.returns, device=device)
        self.calls = torch.ones(batch, dtype=torch.int64, device=device)
        self.tokens = torch.zeros(batch, self.limit, dtype=torch.int64, device=device)
        self.length = torch.zeros(batch, dtype=torch.int64, device=device)
        self.reward = torch.full((batch,), -torch.inf, dtype=torch.float64, device=device)
        self.answered = torch.zeros(batch, dtype=torch.bool, device=device)
        self.nan = torch.zeros(2, dtype=torch.int64, device=device)  # whether probabilities, rewards were undefined so far

    def run(self, block: Block) -> list[Result]:
        places, archive = self._empty(self.width), self._empty(self.width * self.settings.returns)
        archive = archive.only(torch.zeros_like(archive.beam.valid))
        rows = Rows.of(places.beam, 1)
        read = torch.full_like(rows.place, ROOT), torch.full_like(rows.place, ROOT)
        assert self.policy.root_logits is not None and self.mrm.root_logits is not None
        logits = self.policy.root_logits[:, None], self.mrm.root_logits[:, None]
        rounds = 1 + self.settings.returns
        steps, period = self.limit * rounds, COMPACT_EVERY * rounds
        for step in block.steps(range(steps)):
            places, archive = self._step(places, archive, rows, read, *logits)
            places, archive = self._turn(places, archive)
            if step == steps - 1 or (frontier.at_hand(self.policy.device) and not places.beam.growing.any()):
                break
            if (step + 1) % period == 0:
                places, archive = self._compact(places, archive, min(period, steps - 1 - step))
                if not len(self.index):
                    break
            rows = Rows.of(places.beam, self.width)
            read, logits = self._read(places, rows)
        refuse_undefined(*self.nan.tolist())
        return self._results(block)

    def _empty(self, count: int) -> Places:
        """Places of which the first is the prompt."""
        beam = Beam.of_prompts(len(self.index), max(count, 1), self.limit, self.policy.device)
        nodes = torch.full_like(beam.length, ROOT)
        return Places(beam, nodes, nodes)

    def _step(
        self, places: Places, archive: Places, rows: Rows, read: tuple[Tensor, Tensor], logits: Tensor, rewards: Tensor
    ) -> tuple[Places, Places]:
        """The next beam, and the archive with what has not entered it."""
        beam, size = places.beam, archive.beam.valid.shape[1]
        early = (beam.length.gather(1, rows.place) < self.settings.min_new_tokens)[..., None]
        ends = torch.arange(logits.shape[-1], device=logits.device) == self.eos
        probs = probabilities(logits.masked_fill(early & ends, -torch.inf), self.eos, forbid_eos=False)
        rewards = rewards.to(torch.promote_types(rewards.dtype, torch.float32))
        if self.unseen is not None:
            rewards = rewards.masked_fill(self.unseen, UNSEEN_REWARD)
        # Each sequence may end in one way, and an answer that has ended takes no place of the archive.
        most = self.width + size + rewards.shape[1]
        found = best_dense(nuclei(probs, rows.alive, self.settings.top_p), rewards, most)
        self.nan |= torch.stack([undefined(probs, rows.alive), found.reward.isnan().any()])
        chosen = select(beam, rows, found.map(lambda x: x[:, : self.width]), eos_token_id=self.eos, semantics="paper")
        new = chosen.origin >= self.width
        candidate = (chosen.origin - self.width).clamp(min=0)
        row = found.row.gather(1, candidate)
        after = (torch.where(new, each.gather(1, row), ROOT) for each in read)
        kept = torch.zeros_like(found.valid, dtype=torch.int64)
        kept.scatter_add_(1, candidate, (new & chosen.beam.valid).long())
        lost = self._children(beam, rows, found, read).only(kept == 0)
        lost = lost.only(~self._complete(lost.beam))
        beam = replace(chosen.beam, finished=chosen.beam.finished | self._complete(chosen.beam))
        return Places(beam, *after), archive.beside(lost).best(size)

    def _complete(self, beam: Beam) -> Tensor:
        """[B, N] bool: sequences that have ended or reached the token limit."""
        return beam.valid & (beam.finished | (beam.length >= self.limit))

    def _children(self, beam: Beam, rows: Rows, found: Best, read: tuple[Tensor, Tensor]) -> Places:
        """The candidates [B, C] as places of their own."""
        parent = take(rows.place, found.row)
        length, tokens = take(beam.length, parent), take(beam.tokens, parent)
        last = torch.arange(self.limit, device=tokens.device) == length[..., None]
        reward = found.reward.double()
        children = Beam(
            tokens=torch.where(last, found.token[..., None], tokens),
            length=length + 1,
            reward=reward,
            score=reward,
            log_probability=torch.zeros_like(reward),
            finished=found.token == self.eos,
            valid=found.valid,
        )
        return Places(children, *(take(each, found.row) for each in read))

    def _turn(self, places: Places, archive: Places) -> tuple[Places, Places]:
        """Note the answers of prompts all of whose places have ended, and fill their beams from the archive."""
        beam = places.beam
        over = ~beam.growing.any(1)
        at, reward = self.index, beam.reward[:, 0]
        better = over & beam.valid[:, 0] & (~self.answered[at] | (reward > self.reward[at]))
        self.tokens[at] = torch.where(better[:, None], beam.tokens[:, 0], self.tokens[at])
        self.length[at] = torch.where(better, beam.length[:, 0], self.length[at])
        self.reward[at] = torch.where(better, reward, self.reward[at])
        self.answered[at] |= over
        if not self.settings.returns:
            return places, archive
        returning = over & (self.returns > 0)
        self.returns = self.returns - returning.long()
        first = torch.arange(archive.beam.valid.shape[1], device=over.device) < self.width
        back = archive.take(torch.arange(self.width, device=over.device).expand(len(over), -1))
        left = archive.only((self.returns > 0)[:, None] & ~(first & returning[:, None])).best(len(first))
        return back.where(returning, places), left

    def _compact(self, places: Places, archive: Places, ahead: int) -> tuple[Places, Places]:
        """Drop prompts that are done, and nodes that neither beam nor archive needs."""
        both = places.beside(archive)
        alive = torch.cat([places.beam.growing, archive.beam.valid], 1)
        tries = ((self.policy, both.policy), (self.mrm, both.mrm))
        growing, live = look(places.beam.growing, *(trie.live_nodes(nodes, alive) for trie, nodes in tries))
        keep = unfinished(growing, self.policy.device)
        if not len(keep):
            self.index = self.index[keep]
            return places, archive
        if len(keep) < len(growing):
            for trie, _ in tries:
                trie.drop_prompts(keep)
            self.index, self.returns, both, alive = self.index[keep], self.returns[keep], both.of(keep), alive[keep]
        room = self.width * ahead
        policy = self.policy.compact(both.policy, alive, room=room, live_nodes=live[0])
        mrm = self.mrm.compact(both.mrm, alive, room=room, live_nodes=live[1])
        both = Places(both.beam, policy, mrm)
        every = torch.arange(policy.shape[1], device=policy.device).expand(len(policy), -1)
        return both.take(every[:, : self.width]), both.take(every[:, self.width :])

    def _read(self, places: Places, rows: Rows) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Nodes and logits of both models after each row's last token."""
        last = (take(places.beam.length, rows.place) - 1).clamp(min=0, max=self.limit - 1)  # filler is of any length
        tokens = take(places.beam.tokens, rows.place).gather(2, last[..., None])[..., 0]
        policy = self.policy.extend(take(places.policy, rows.place), tokens, alive=rows.alive)
        mrm = self.mrm.extend(take(places.mrm, rows.place), tokens, alive=rows.alive)
        self.calls.index_add_(0, self.index, rows.alive.sum(1))
        return (policy.nodes, mrm.nodes), (policy.logits, mrm.logits)

    def _results(self, block: Block) -> list[Result]:
        columns = [counts.tolist() for trie in (self.policy, self.mrm) for counts in (trie.ledger.nominal, trie.ledger.executed)]
        policy, executed_policy, reward, executed_reward = columns
        answers = [row[:length] for row, length in zip(self.tokens.tolist(), self.length.tolist(), strict=True)]
        rewards, calls = self.reward.tolist(), self.calls.tolist()
        return [
            Result(
                prompt_id=prompt.prompt_id,
                budget=self.width,
                output_ids=answers[place],
                reward=rewards[place] if isfinite(rewards[place]) else None,
                finished=self.eos in answers[place],
                flops_policy=policy[place],
                flops_reward=reward[place],
                flops_executed_policy=executed_policy[place],
                flops_executed_reward=executed_reward[place],
                reward_calls=calls[place],
            )
            for place, prompt in enumerate(block.prompts)
        ]
