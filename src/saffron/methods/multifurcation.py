"""What methods share that read multifurcation reward models otherwise than Saffron-1 does: whole samples, several MRMs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saffron.engine.compute import Ledger
from saffron.engine.trie import ROOT, TokenTrie
from saffron.methods.base import MethodError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from saffron.methods.base import SearchModels
    from saffron.methods.ensemble import Ensemble


def sample_rewards(
    mrm: PreTrainedModel, prompts: Sequence[Sequence[int]], tokens: Tensor, lengths: Tensor
) -> tuple[Tensor, Ledger]:
    """M(s)[a] of every sample, a being its last token and s all before it, which is what the MRM reads; in one forward.

    Args:
        mrm: the MRM; a bias of its lm_head is used.
        prompts: B token-id lists.
        tokens: [B, R, T] samples.
        lengths: [B, R] tokens of each, at least 1.

    Returns:
        float64 [B, R] rewards, and the ledger of what the MRM read.
    """
    trie = TokenTrie(mrm, prompts)
    assert trie.root_logits is not None
    last = tokens.gather(2, lengths[..., None] - 1)
    rewards = trie.root_logits[:, None].expand(-1, tokens.shape[1], -1).gather(2, last)
    longer = lengths > 1
    if tokens.shape[2] > 1:
        read = trie.branch(torch.full_like(lengths, ROOT), tokens[..., :-1], alive=longer, lengths=(lengths - 1).clamp(min=1))
        rewards = torch.where(longer[..., None], read.logits.gather(2, last), rewards)
    return rewards[..., 0].double(), trie.ledger


def members(models: SearchModels, settings: Ensemble) -> list[PreTrainedModel]:
    """The MRMs of an ensemble, the first one first.

    Raises:
        MethodError: if there are not as many as the settings name.
    """
    found = [] if models.mrm is None else [models.mrm, *models.others]
    if len(found) != settings.members:
        raise MethodError(f"an ensemble of {settings.members} MRMs, but {len(found)} are loaded; name in others those that are")
    return found


def aggregated(rewards: Tensor, settings: Ensemble) -> Tensor:
    """One reward of the members' (arXiv 2310.02743): mean, worst case, or mean less weighted variance.

    Args:
        rewards: [K, ...] of K members.
        settings: of the ensemble.

    Returns:
        [...] in the members' dtype, computed in float64. The variance is the mean squared distance from the mean; with one
        member every aggregation is its reward.
    """
    exact = rewards.double()
    if settings.aggregation == "worst":
        return exact.amin(0).to(rewards.dtype)
    found = exact.mean(0)
    if settings.aggregation == "uncertainty":
        penalised = found - settings.variance_weight * exact.var(0, correction=0)
        found = penalised.where(found.isfinite(), found)  # a bias of minus infinity has no variance
    return found.to(rewards.dtype)
