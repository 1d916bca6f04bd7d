"""Saffron-1: tree search guided by a multifurcation reward model (Section 4; Eq. 2, 3 and 7).

Each step proposes the nucleus of every growing sequence under the policy, scores all these children with one call of the
MRM per *parent* (or, for comparison, one call of the PRM per child), and selects the next beam. Both semantics of
``docs/paper.md`` are here: ``paper`` compares children by their own rewards, ``released`` does what the authors' code does.

:func:`search` works on token ids; the method of the pipeline over it is :mod:`saffron.methods.saffron.search`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from saffron.engine.compute import Ledger
from saffron.engine.trie import ROOT, TokenTrie
from saffron.methods.base import SearchModels
from saffron.methods.frontier import at_hand, look, take, true_first, unfinished
from saffron.methods.repetition import Repeats
from saffron.methods.saffron.diversity import POOL, diverse, similarity
from saffron.methods.saffron.selection import (
    UNSEEN_REWARD,
    Best,
    Candidates,
    Floats,
    Nuclei,
    best,
    best_dense,
    best_listed,
    entries_at,
    nuclei,
    nucleus,
    plausible,
    probabilities,
    refuse_undefined,
    undefined,
)
from saffron.methods.saffron.tree import SearchTree, TreeCandidate, TreeStep
from saffron.methods.verdicts import Verdicts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Semantics = Literal["paper", "released"]
#: Dead nodes are dropped after this many steps, or once a trie has grown by this many nodes per prompt, whichever is later.
COMPACT_EVERY, COMPACT_NODES = 4, 64
#: Sizes that storage of fixed shapes takes at most while a search runs: each is recorded anew, which costs as much as some steps.
STORAGE_SIZES = 3
#: Share of the vocabulary up to which the MRM's lm_head is evaluated for the candidates' rows only (measured on a CPU).
SPARSE_UNEMBEDDING = 0.5


# --------------------------------------------------------------------------------------------------------------- beam
@dataclass(frozen=True)
class Beam:
    """N places of each of B prompts, best first.

    Attributes:
        tokens: [B, N, T] new tokens.
        length: [B, N] how many there are.
        reward: [B, N] float64.
        score: [B, N] float64, what places are ordered by: the reward, or more than it.
        log_probability: [B, N] float64, of the new tokens under the policy (0 where a search does not ask for it).
        finished: [B, N] bool, ends with EOS.
        valid: [B, N] bool, the place is taken.
    """

    tokens: Tensor
    length: Tensor
    reward: Tensor
    score: Tensor
    log_probability: Tensor
    finished: Tensor
    valid: Tensor

    @classmethod
    def of_prompts(cls, batch: int, width: int, limit: int, device: torch.device) -> Beam:
        """One empty sequence per prompt in the first place."""
        valid = torch.zeros(batch, width, dtype=torch.bool, device=device)
        valid[:, 0] = True
        worst = torch.full((batch, width), -torch.inf, dtype=torch.float64, device=device)
        return cls(
            tokens=torch.zeros(batch, width, limit, dtype=torch.int64, device=device),
            length=torch.zeros(batch, width, dtype=torch.int64, device=device),
            reward=worst,
            score=worst,
            log_probability=torch.zeros_like(worst),
            finished=torch.zeros_like(valid),
            valid=valid,
        )

    @property
    def growing(self) -> Tensor:
        """[B, N] bool: sequences that have not ended."""
        return self.valid & ~self.finished

    def of(self, keep: Tensor) -> Beam:
        """The beams of some prompts [B']."""
        return Beam(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})


@dataclass(frozen=True)
class Rows:
    """The growing sequences of a beam, as rows that the models extend.

    Attributes:
        place: [B, R] place in the beam.
        alive: [B, R] bool; other rows are padding.
    """

    place: Tensor
    alive: Tensor

    @classmethod
    def of(cls, beam: Beam, count: int) -> Rows:
        """The first ``count`` places of the beam, growing ones first, in beam order."""
        growing = beam.growing
        place = true_first(growing, count)
        return cls(place, growing.gather(1, place))

    def of_prompts(self, keep: Tensor) -> Rows:
        """The rows of some prompts [B']."""
        return Rows(self.place[keep], self.alive[keep])

    def first(self, count: int) -> Rows:
        """The first ``count`` rows of each prompt."""
        return Rows(self.place[:, :count].contiguous(), self.alive[:, :count].contiguous())


@dataclass(frozen=True)
class Selected:
    """A new beam and where its places come from.

    Attributes:
        beam: the new beam.
        origin: [B, N] below N: a finished sequence's old place; else N + position in :class:`Best`.
    """

    beam: Beam
    origin: Tensor


def select(
    beam: Beam, rows: Rows, found: Best, *, eos_token_id: int, semantics: Semantics, likelihood: Tensor | None = None
) -> Selected:
    """The next beam from finished sequences and the best candidates.

    Args:
        beam: the beam that was extended.
        rows: its rows.
        found: the N best candidates of each prompt, by (score, beam order, probability, token id).
        eos_token_id: the end-of-sequence token.
        semantics: ``paper``: finished sequences and candidates compete by their scores, ties in beam order.
            ``released``: only candidates that end carry a reward, others -inf; finished sequences stand before candidates.
        likelihood: [B, R, V] log probability of every child's new tokens, if the beam is to know it.
    """
    width = beam.valid.shape[1]
    parent = rows.place.gather(1, found.row)
    ends = found.token == eos_token_id
    reward, score = found.reward.double(), found.score.double()
    if semantics == "released":
        reward, score = (values.masked_fill(~ends, -torch.inf) for values in (reward, score))
    places = torch.arange(width, device=parent.device).expand_as(beam.valid)
    source = torch.cat([places, parent], 1)  # [B, 2N] place in the old beam
    log_probability = beam.log_probability if likelihood is None else entries_at(likelihood, found.row, found.token).double()
    scores = torch.cat([beam.score, score], 1)
    valid = torch.cat([beam.valid & beam.finished, found.valid], 1)
    order = torch.arange(2 * width, device=parent.device).expand_as(valid)
    if semantics == "paper":
        order = torch.argsort(source, dim=1, stable=True)
    order = order.gather(1, torch.argsort(scores.gather(1, order), dim=1, descending=True, stable=True))
    order = order.gather(1, torch.argsort(~valid.gather(1, order), dim=1, stable=True))[:, :width]
    new = order >= width
    candidate = (order - width).clamp(min=0)
    source = source.gather(1, order)
    length = beam.length.gather(1, source)
    tokens = beam.tokens.gather(1, source[..., None].expand(-1, -1, beam.tokens.shape[2]))
    last = torch.where(new, found.token.gather(1, candidate), 0)
    at = torch.arange(tokens.shape[2], device=tokens.device) == length[..., None]
    tokens = torch.where(at & new[..., None], last[..., None], tokens)
    finished = torch.where(new, last == eos_token_id, True)
    chosen = Beam(
        tokens=tokens,
        length=length + new,
        reward=torch.cat([beam.reward, reward], 1).gather(1, order),
        score=scores.gather(1, order),
        log_probability=torch.cat([beam.log_probability, log_probability], 1).gather(1, order),
        finished=finished,
        valid=valid.gather(1, order),
    )
    return Selected(chosen, order)


# -------------------------------------------------------------------------------------------------------------- scores
class Scorer(Protocol):
    """Rewards of the children of growing sequences."""

    @property
    def ledger(self) -> Ledger:
        """What has been read for them."""

    @property
    def calls(self) -> Tensor:
        """int64 [B], calls of the reward model so far."""

    def scores(self, candidates: Candidates) -> Floats:
        """[C] rewards of listed candidates."""

    def best(self, found: Nuclei, count: int, bonus: Tensor | None) -> Best:
        """The ``count`` candidates of each prompt with the highest rewards, selected on the device.

        Args:
            found: all candidates.
            count: N.
            bonus: [B, R, V], what is added to a reward where candidates are compared.
        """

    def live_nodes(self, rows: Tensor, alive: Tensor) -> Tensor:
        """[] int64, on the device: nodes per prompt that stay if dead ones are dropped now; arguments as in :meth:`grow`."""

    def grow(self, rows: Tensor, found: Best, chosen: Tensor, alive: Tensor, *, steps: int, live_nodes: int | None) -> None:
        """Move to the next step's rows.

        Args:
            rows: [B, R] the row each extends.
            found: the best candidates of the step.
            chosen: [B, R] which of them each is.
            alive: [B, R] bool.
            steps: how often rows grow until dead nodes are dropped next, this time included.
            live_nodes: if given, dead nodes are dropped now; what :meth:`live_nodes` has said of these arguments.
        """

    def drop_prompts(self, keep: Tensor) -> None:
        """Keep only these prompts [B'] of the batch."""


class MRMScorer:
    """One call of the multifurcation reward model scores every child of a sequence.

    The call is made when its rewards are asked for: by then the candidates are known, and if they are few only their rows
    of the lm_head are evaluated.

    Args:
        mrm: the MRM; a bias of its lm_head is used.
        prompts: B token-id lists.
        unseen: [V] bool, tokens that score :data:`UNSEEN_REWARD` whatever the model says (Eq. 7).
        width: beam width N.
        max_new_tokens: token limit.
        sparse_unembedding: share of the vocabulary up to which only the candidates' rows are evaluated; 0 for always all.
    """

    def __init__(
        self,
        mrm: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        unseen: Tensor | None,
        *,
        width: int,
        max_new_tokens: int,
        sparse_unembedding: float = SPARSE_UNEMBEDDING,
    ) -> None:
        self._sparse_unembedding = sparse_unembedding
        self._trie = _trie(mrm, prompts, width, max_new_tokens)
        self.ledger = self._trie.ledger
        device = self._trie.device
        self._index = torch.arange(len(prompts), device=device)
        self.calls = torch.ones(len(prompts), dtype=torch.int64, device=device)
        self._unseen = None if unseen is None else unseen.to(device)
        self._nodes = torch.full((len(prompts), 1), ROOT, device=device)
        self._waiting: tuple[Tensor, Tensor, Tensor, int] | None = None

    def scores(self, candidates: Candidates) -> Floats:
        """See :class:`Scorer`."""
        vocabulary = self._trie.shape.vocab_size
        present = np.zeros(vocabulary, dtype=bool)
        present[candidates.token] = True
        ids = np.flatnonzero(present)
        sparse = self._waiting is not None and len(ids) <= self._sparse_unembedding * vocabulary
        logits = self._evaluate(torch.from_numpy(ids).to(self._trie.device) if sparse else None)
        columns = candidates.token
        if sparse:
            columns = (np.cumsum(present) - 1)[columns]
        flat = (candidates.prompt * logits.shape[1] + candidates.row) * logits.shape[2] + columns
        rewards = logits.cpu().numpy().reshape(-1)[flat]
        if self._unseen is not None:
            rewards[self._unseen.cpu().numpy()[candidates.token]] = UNSEEN_REWARD
        return rewards

    def best(self, found: Nuclei, count: int, bonus: Tensor | None) -> Best:
        """See :class:`Scorer`; the host reads nothing."""
        logits = self._evaluate(None)
        rewards = logits if self._unseen is None else logits.masked_fill(self._unseen, UNSEEN_REWARD)
        return best_dense(found, rewards, count, bonus)

    def _evaluate(self, ids: Tensor | None) -> Tensor:
        """[B, R, V or K] logits of the current rows, in float32 or better."""
        if self._waiting is None:
            assert self._trie.root_logits is not None
            logits = self._trie.root_logits[:, None]
        else:
            parents, tokens, alive, room = self._waiting
            extension = self._trie.extend(parents, tokens, alive=alive, select=ids, room=room)
            self._nodes, logits = extension.nodes, extension.logits
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def live_nodes(self, rows: Tensor, alive: Tensor) -> Tensor:
        """See :class:`Scorer`."""
        return self._trie.live_nodes(self._nodes.gather(1, rows), alive)

    def grow(self, rows: Tensor, found: Best, chosen: Tensor, alive: Tensor, *, steps: int, live_nodes: int | None) -> None:
        """See :class:`Scorer`."""
        parents, count = self._nodes.gather(1, rows), rows.shape[1]
        if live_nodes is not None:
            parents = self._trie.compact(parents, alive, room=steps * count, live_nodes=live_nodes)
        self.calls.index_add_(0, self._index, alive.sum(1))
        self._waiting = parents, found.token.gather(1, chosen), alive, (steps - 1) * count

    def drop_prompts(self, keep: Tensor) -> None:
        """See :class:`Scorer`."""
        self._trie.drop_prompts(keep)
        self._nodes, self._index = self._nodes[keep], self._index[keep]


class PRMScorer:
    """One call of the process reward model per child: what Saffron-1 saves.

    Each candidate is a row of the guard's forward, and only the policy's distribution says how many there are. So selection
    on the device costs one device-to-host copy per step here: that number, and the guard's live nodes with it.
    """

    def __init__(self, models: SearchModels, prompts: Sequence[Sequence[int]]) -> None:
        self._verdicts = Verdicts(models.guard, models.formats, prompts)
        self.ledger = self._verdicts.trie.ledger
        self.calls = self._verdicts.calls
        self._nodes = torch.full((len(prompts), 1), ROOT, device=self._verdicts.trie.device)
        self._alive = torch.ones_like(self._nodes, dtype=torch.bool)
        self._read = self._nodes  # [C] guard node of each candidate of all prompts

    def scores(self, candidates: Candidates) -> Floats:
        """See :class:`Scorer`."""
        trie = self._verdicts.trie
        counts = np.bincount(candidates.prompt, minlength=trie.batch)
        column = np.arange(len(candidates.prompt)) - np.repeat(np.cumsum(counts) - counts, counts)
        self._nodes = trie.compact(self._nodes, self._alive, room=int(counts.max()))
        place = (torch.from_numpy(candidates.prompt).to(trie.device), torch.from_numpy(column).to(trie.device))
        tokens = torch.zeros(trie.batch, int(counts.max()), dtype=torch.int64, device=trie.device)
        parents, alive = torch.full_like(tokens, ROOT), torch.zeros_like(tokens, dtype=torch.bool)
        tokens[place] = torch.from_numpy(candidates.token).to(trie.device)
        parents[place] = self._nodes[place[0], torch.from_numpy(candidates.row).to(trie.device)]
        alive[place] = True
        nodes, rewards = self._verdicts.read(parents, tokens[..., None], alive=alive, commit=1)
        self._read = nodes[..., 0][place]
        return rewards[place].cpu().numpy()

    def best(self, found: Nuclei, count: int, bonus: Tensor | None) -> Best:
        """See :class:`Scorer`."""
        trie = self._verdicts.trie
        most = found.inside.sum((1, 2)).amax().clamp(min=1)  # none is left where all have finished
        size, live = torch.stack([most, trie.live_nodes(self._nodes, self._alive)]).tolist()
        nodes = trie.compact(self._nodes, self._alive, room=size, live_nodes=live)
        row, token, there = found.first(size)
        read, rewards = self._verdicts.read(nodes.gather(1, row), token[..., None], alive=there, commit=1)
        self._read = read.flatten()
        return best_listed(row, token, there, rewards, count, bonus)

    def live_nodes(self, rows: Tensor, alive: Tensor) -> Tensor:
        """See :class:`Scorer`; dead nodes are dropped before every reading, so none is counted here."""
        return self.calls.new_zeros(())

    def grow(self, rows: Tensor, found: Best, chosen: Tensor, alive: Tensor, *, steps: int, live_nodes: int | None) -> None:
        """See :class:`Scorer`."""
        assert found.index is not None
        self._nodes, self._alive = self._read[found.index.to(self._read.device).gather(1, chosen)], alive

    def drop_prompts(self, keep: Tensor) -> None:
        """See :class:`Scorer`."""
        self._verdicts.drop_prompts(keep)
        self._nodes, self._alive = self._nodes[keep], self._alive[keep]


# -------------------------------------------------------------------------------------------------------------- search
def compaction_period(width: int, max_new_tokens: int) -> int:
    """Steps between two compactions of the tries; on a GPU also between two looks at which prompts have finished."""
    return max(1, min(max(COMPACT_EVERY, COMPACT_NODES // width), max_new_tokens - 1))


def _trie(model: PreTrainedModel, prompts: Sequence[Sequence[int]], width: int, max_new_tokens: int) -> TokenTrie:
    """A trie for a beam: of the storage that its beam turns out to need where the host sees it, and of few shapes elsewhere."""
    if at_hand(model.device):
        return TokenTrie(model, prompts)
    least, most = width * compaction_period(width, max_new_tokens), width * max(1, max_new_tokens - 1)
    step = max(least, -(-most // STORAGE_SIZES))
    return TokenTrie(model, prompts, room=step, fixed_shapes=True, step=step)


@dataclass(frozen=True)
class Outcome:
    """What a search chose for each prompt, lists of B entries (rewards: -inf where no reward was carried)."""

    tokens: list[list[int]]
    rewards: list[float]
    finished: list[bool]
    ledger: Ledger
    trees: list[SearchTree] | None


@torch.no_grad()
def search(
    policy: PreTrainedModel,
    scorer: Scorer,
    prompts: Sequence[Sequence[int]],
    *,
    width: int,
    top_p: float,
    max_new_tokens: int,
    min_new_tokens: int,
    eos_token_id: int,
    semantics: Semantics = "paper",
    min_p: float = 0.0,
    noise_threshold: float = 0.0,
    diversity_weight: float = 0.0,
    likelihood_weight: float = 0.0,
    no_repeat_ngram_size: int = 0,
    listed: bool | None = None,
    record_tree: bool = False,
    steps: Callable[[range], Iterable[int]] = iter,
) -> Outcome:
    """Saffron-1 over a batch of prompts.

    Args:
        policy: proposes.
        scorer: scores.
        prompts: B token-id lists as the policy reads them.
        width: beam width N.
        top_p: nucleus mass of the candidates.
        max_new_tokens: token limit T.
        min_new_tokens: EOS is forbidden while fewer new tokens than this have been generated.
        eos_token_id: the end-of-sequence token.
        semantics: see :func:`select`.
        min_p: see :func:`saffron.methods.saffron.selection.plausible`; 0 for no such threshold.
        noise_threshold: likewise.
        diversity_weight: see :func:`saffron.methods.saffron.diversity.diverse`; 0 for the N best whatever their parents.
        likelihood_weight: beta. Sequences are compared by their reward + beta * log P(sequence), P being the policy's own
            distribution over what follows the prompt, whatever is forbidden.
        no_repeat_ngram_size: see :class:`saffron.methods.repetition.Repeats`; 0 for no such constraint.
        listed: list candidates on the host instead of sorting on the device (default: if the device is a CPU). If not
            listed, this loop copies nothing from the device between two compactions; nor does :class:`MRMScorer`, while
            :class:`PRMScorer` has one copy per step.
        record_tree: keep every candidate of every step (lists candidates).
        steps: goes over the steps, see :class:`saffron.methods.base.Block`.

    Raises:
        ValueError: if the policy's probabilities or the rewards hold NaN (not listed: at the next compaction or the end).
    """
    period = compaction_period(width, max_new_tokens)
    trie = _trie(policy, prompts, width, max_new_tokens)
    listed = (at_hand(trie.device) if listed is None else listed) or record_tree
    beam = Beam.of_prompts(trie.batch, width, max_new_tokens, trie.device)
    rows = Rows.of(beam, 1)
    nodes = torch.full((trie.batch, 1), ROOT, device=trie.device)
    index = torch.arange(trie.batch, device=trie.device)
    answers = _Answers(trie.batch, max_new_tokens, trie.device)
    recorder = _Recorder(trie.batch) if record_tree else None
    assert trie.root_logits is not None
    logits = trie.root_logits[:, None]
    repeats = Repeats(prompts, no_repeat_ngram_size, trie.device) if no_repeat_ngram_size else None
    nan = torch.zeros(2, dtype=torch.int64, device=trie.device)  # whether probabilities, rewards were undefined so far
    for step in steps(range(max_new_tokens)):
        likelihood = _likelihood(logits, beam, rows) if likelihood_weight else None
        bonus = None if likelihood is None else likelihood_weight * likelihood
        alike, pool = (similarity(logits), POOL * width) if diversity_weight else (None, width)
        repeating = None if repeats is None else repeats.after(take(beam.tokens, rows.place)[..., :step], logits.shape[-1])
        probs = probabilities(logits, eos_token_id, step < min_new_tokens, repeating)
        probs = plausible(probs, min_p=min_p, noise_threshold=noise_threshold)
        if listed:
            candidates = nucleus(probs.cpu(), rows.alive.cpu(), top_p)
            scores = scorer.scores(candidates)
            added = None if bonus is None else bonus.cpu().numpy()[candidates.prompt, candidates.row, candidates.token]
            found = _to(best(candidates, scores, len(index), pool, added), trie.device)
        else:
            found = scorer.best(nuclei(probs, rows.alive, top_p), pool, bonus)
            nan |= torch.stack([undefined(probs, rows.alive), found.score.isnan().any()])
        if alike is not None:
            found = diverse(found, alike, width, diversity_weight)
        selected = select(beam, rows, found, eos_token_id=eos_token_id, semantics=semantics, likelihood=likelihood)
        if recorder is not None:
            recorder.step(index, beam, rows, candidates, scores, found, selected)
        beam = selected.beam
        if step == max_new_tokens - 1:
            break
        compact = step > 0 and step % period == 0
        rows = Rows.of(beam, width)
        chosen = (selected.origin.gather(1, rows.place) - width).clamp(min=0)
        extended = found.row.gather(1, chosen)
        parents = nodes.gather(1, extended)
        live: list[int] = []
        if listed or compact:
            tries = (trie.live_nodes(parents, rows.alive), scorer.live_nodes(extended, rows.alive)) if compact else ()
            growing, (policy_nan, reward_nan, *live) = look(beam.growing, *nan, *tries)
            refuse_undefined(policy_nan > 0, reward_nan > 0)
            if min(growing) == 0:
                answers.write(index, beam)
                keep = unfinished(growing, trie.device)
                if not len(keep):
                    break
                trie.drop_prompts(keep)
                scorer.drop_prompts(keep)
                if repeats is not None:
                    repeats.drop_prompts(keep)
                index, beam, rows, found = index[keep], beam.of(keep), rows.of_prompts(keep), _of(found, keep)
                chosen, extended, parents = chosen[keep], extended[keep], parents[keep]
            if listed:
                count = max(growing)
                rows, chosen, extended, parents = rows.first(count), chosen[:, :count], extended[:, :count], parents[:, :count]
        ahead, count = min(period - step % period, max_new_tokens - 1 - step), extended.shape[1]
        if compact:
            parents = trie.compact(parents, rows.alive, room=ahead * count, live_nodes=live[0])
        scorer.grow(extended, found, chosen, rows.alive, steps=ahead, live_nodes=live[1] if compact else None)
        extension = trie.extend(parents, found.token.gather(1, chosen), alive=rows.alive, room=(ahead - 1) * count)
        nodes, logits = extension.nodes, extension.logits
    answers.write(index, beam)
    refuse_undefined(*nan.tolist())
    return answers.outcome(trie.ledger, recorder)


def _likelihood(logits: Tensor, beam: Beam, rows: Rows) -> Tensor:
    """[B, R, V] log probability of every child's new tokens, in float32 or better."""
    last = torch.log_softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))
    return beam.log_probability.gather(1, rows.place)[..., None].to(last.dtype) + last


def _to(found: Best, device: torch.device) -> Best:
    return found if device.type == "cpu" else found.map(lambda values: values.to(device))


def _of(found: Best, keep: Tensor) -> Best:
    return found.map(lambda values: values[keep])


class _Answers:
    """The first place of each prompt's beam when its search ends: the first maximum by reward."""

    def __init__(self, batch: int, limit: int, device: torch.device) -> None:
        self._tokens = torch.zeros(batch, limit, dtype=torch.int64, device=device)
        self._length = torch.zeros(batch, dtype=torch.int64, device=device)
        self._reward = torch.full((batch,), -torch.inf, dtype=torch.float64, device=device)
        self._finished = torch.zeros(batch, dtype=torch.bool, device=device)

    def write(self, index: Tensor, beam: Beam) -> None:
        self._tokens[index], self._length[index] = beam.tokens[:, 0], beam.length[:, 0]
        self._reward[index], self._finished[index] = beam.reward[:, 0], beam.finished[:, 0]

    def outcome(self, ledger: Ledger, recorder: _Recorder | None) -> Outcome:
        lengths = self._length.tolist()
        tokens = [row[:length] for row, length in zip(self._tokens.tolist(), lengths, strict=True)]
        trees = None if recorder is None else recorder.trees(ledger)
        return Outcome(tokens, self._reward.tolist(), self._finished.tolist(), ledger, trees)


class _Recorder:
    """Keeps every candidate of every step (host side; for figures, not for speed)."""

    def __init__(self, batch: int) -> None:
        self._nodes: list[list[tuple[int, int]]] = [[] for _ in range(batch)]
        self._steps: list[list[TreeStep]] = [[] for _ in range(batch)]
        self._beams: list[list[int]] = [[-1] for _ in range(batch)]  # tree node of each place

    def step(
        self, index: Tensor, beam: Beam, rows: Rows, candidates: Candidates, scores: Floats, found: Best, selected: Selected
    ) -> None:
        """Note one step of the prompts ``index`` [B] that are still in the batch."""
        assert found.index is not None
        width = beam.valid.shape[1]
        for prompt, original in enumerate(index.tolist()):
            nodes, old = self._nodes[original], self._beams[original]
            taken = selected.beam.valid[prompt].tolist()
            origin = selected.origin[prompt].tolist()
            new, entered = [], {}
            for place, valid in zip(origin, taken, strict=True):
                if valid and place >= width:
                    listed = int(found.index[prompt, place - width])
                    row = int(candidates.row[listed])
                    nodes.append((old[int(rows.place[prompt, row])], int(candidates.token[listed])))
                    entered[listed] = len(nodes) - 1
                    new.append(len(nodes) - 1)
                elif valid:
                    new.append(old[place])
            mine = np.flatnonzero(candidates.prompt == prompt)
            mine = mine[np.lexsort((-candidates.probability[mine], candidates.row[mine]))]
            children = [
                TreeCandidate(
                    parent=old[int(rows.place[prompt, int(candidates.row[c])])],
                    token=int(candidates.token[c]),
                    probability=float(candidates.probability[c]),
                    reward=float(scores[c]),
                    node=entered.get(int(c)),
                )
                for c in mine
            ]
            self._steps[original].append(TreeStep(list(old), children))
            self._beams[original] = new

    def trees(self, ledger: Ledger) -> list[SearchTree]:
        counts = (map(int, numbers.tolist()) for numbers in (ledger.tokens, ledger.context))
        return [SearchTree(*columns) for columns in zip(self._nodes, self._steps, *counts, strict=True)]
