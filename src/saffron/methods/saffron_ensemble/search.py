"""Saffron-1's search with the aggregated rewards of several MRMs, each of which reads every sequence of the beam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from saffron.engine.compute import Ledger
from saffron.methods.base import Block, Result
from saffron.methods.multifurcation import aggregated, members
from saffron.methods.saffron import search as saffron
from saffron.methods.saffron.algorithm import MRMScorer
from saffron.methods.saffron.selection import UNSEEN_REWARD, Best, Candidates, Floats, Nuclei, best_dense
from saffron.methods.saffron_ensemble import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def search(block: Block, settings: Settings, budget: int) -> list[Result]:
    """Saffron-1 with an ensemble; the budget is the beam width N. Draws nothing at random."""
    models = block.models
    unseen = saffron.unseen_tokens(models, settings) if settings.conservative else None
    prompts = [prompt.mrm_ids for prompt in block.prompts]
    scorer = EnsembleScorer(
        settings, members(models, settings), prompts, unseen, width=budget, max_new_tokens=block.max_new_tokens
    )
    return saffron.search_with(block, settings, budget, scorer)


class _Member(MRMScorer):
    """One of the MRMs."""

    def rewards(self) -> Tensor:
        """[B, R, V] rewards of all children of the current rows, in float32 or better."""
        return self._evaluate(None)


class EnsembleScorer:
    """One call of every MRM scores every child of a sequence; see :class:`saffron.methods.saffron.algorithm.Scorer`.

    Args:
        settings: how rewards are aggregated.
        mrms: the members, of one shape.
        prompts: B token-id lists, the same for all.
        unseen: [V] bool, tokens that score :data:`UNSEEN_REWARD` whatever the models say (Eq. 7).
        width: beam width N.
        max_new_tokens: token limit.
    """

    def __init__(
        self,
        settings: Settings,
        mrms: Sequence[PreTrainedModel],
        prompts: Sequence[Sequence[int]],
        unseen: Tensor | None,
        *,
        width: int,
        max_new_tokens: int,
    ) -> None:
        self._settings, self._unseen = settings, unseen
        self._members = [_Member(mrm, prompts, None, width=width, max_new_tokens=max_new_tokens) for mrm in mrms]

    @property
    def ledger(self) -> Ledger:
        """What all members have read."""
        ledgers = [member.ledger for member in self._members]
        return Ledger(
            ledgers[0].shape,
            tokens=torch.stack([one.tokens for one in ledgers]).sum(0),
            context=torch.stack([one.context for one in ledgers]).sum(0),
            executed=torch.stack([one.executed for one in ledgers]).sum(0),
            peak_kv_bytes=sum(one.peak_kv_bytes for one in ledgers),
        )

    @property
    def calls(self) -> Tensor:
        """int64 [B], calls of all members."""
        return torch.stack([member.calls for member in self._members]).sum(0)

    def scores(self, candidates: Candidates) -> Floats:
        """See :class:`saffron.methods.saffron.algorithm.Scorer`."""
        found = torch.from_numpy(np.stack([member.scores(candidates) for member in self._members]))
        rewards: Floats = aggregated(found, self._settings).numpy()
        if self._unseen is not None:
            rewards[self._unseen.cpu().numpy()[candidates.token]] = UNSEEN_REWARD
        return rewards

    def best(self, found: Nuclei, count: int, bonus: Tensor | None) -> Best:
        """See :class:`saffron.methods.saffron.algorithm.Scorer`; the host reads nothing."""
        rewards = aggregated(torch.stack([member.rewards() for member in self._members]), self._settings)
        if self._unseen is not None:
            rewards = rewards.masked_fill(self._unseen, UNSEEN_REWARD)
        return best_dense(found, rewards, count, bonus)

    def live_nodes(self, rows: Tensor, alive: Tensor) -> Tensor:
        """See :class:`saffron.methods.saffron.algorithm.Scorer`; the members' tries hold the same nodes."""
        return self._members[0].live_nodes(rows, alive)

    def grow(self, rows: Tensor, found: Best, chosen: Tensor, alive: Tensor, *, steps: int, live_nodes: int | None) -> None:
        """See :class:`saffron.methods.saffron.algorithm.Scorer`."""
        for member in self._members:
            member.grow(rows, found, chosen, alive, steps=steps, live_nodes=live_nodes)

    def drop_prompts(self, keep: Tensor) -> None:
        """See :class:`saffron.methods.saffron.algorithm.Scorer`."""
        for member in self._members:
            member.drop_prompts(keep)
