"""Saffron-1 as a method of the pipeline: the models and settings of a run, and results with their cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from saffron.methods.base import Block, Result, SearchModels
from saffron.methods.saffron import Settings, algorithm
from saffron.methods.saffron.algorithm import MRMScorer, PRMScorer, Scorer
from saffron.methods.saffron.tree import SearchTree

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def search(block: Block, settings: Settings, budget: int) -> list[Result]:
    """Saffron-1; the budget is the beam width N. Draws nothing at random."""
    return _search(block, settings, budget, record_tree=False)[0]


def record(block: Block, settings: Settings, budget: int) -> list[tuple[Result, SearchTree]]:
    """The same with every candidate of every step kept, for figures and not for speed."""
    results, trees = _search(block, settings, budget, record_tree=True)
    assert trees is not None
    return list(zip(results, trees, strict=True))


def search_with(block: Block, settings: Settings, budget: int, scorer: Scorer) -> list[Result]:
    """The same by another scorer than the settings name."""
    return _search(block, settings, budget, record_tree=False, scorer=scorer)[0]


def unseen_tokens(models: SearchModels, settings: Settings) -> Tensor | None:
    """bool [V]: tokens that count as unseen, EOS as ``eos_seen`` says; None for models without a mask."""
    if models.unseen is None:
        return None
    unseen = models.unseen.clone()
    unseen[models.formats.eos_id] = not settings.eos_seen
    return unseen


def mrm_of(models: SearchModels) -> PreTrainedModel:
    """The MRM.

    Raises:
        ValueError: if there is none.
    """
    if models.mrm is None:
        raise ValueError("saffron with scorer mrm needs an MRM; train one (stage mrm) or set scorer: prm")
    return models.mrm


def _search(
    block: Block, settings: Settings, width: int, *, record_tree: bool, scorer: Scorer | None = None
) -> tuple[list[Result], list[SearchTree] | None]:
    models, prompts = block.models, block.prompts
    scorer = scorer or _scorer(block, settings, width)
    outcome = algorithm.search(
        models.policy,
        scorer,
        [prompt.policy_ids for prompt in prompts],
        width=width,
        top_p=settings.top_p,
        max_new_tokens=block.max_new_tokens,
        min_new_tokens=settings.min_new_tokens,
        eos_token_id=models.formats.eos_id,
        semantics=settings.semantics,
        min_p=settings.min_p,
        noise_threshold=settings.noise_threshold,
        diversity_weight=settings.diversity_weight,
        likelihood_weight=settings.likelihood_weight,
        no_repeat_ngram_size=settings.no_repeat_ngram_size,
        record_tree=record_tree,
        steps=block.steps,
    )
    columns = [counts.tolist() for ledger in (outcome.ledger, scorer.ledger) for counts in (ledger.nominal, ledger.executed)]
    policy, executed_policy, reward, executed_reward = columns
    calls = scorer.calls.tolist()
    results = [
        Result(
            prompt_id=prompt.prompt_id,
            budget=width,
            output_ids=outcome.tokens[place],
            reward=outcome.rewards[place] if np.isfinite(outcome.rewards[place]) else None,
            finished=outcome.finished[place],
            flops_policy=policy[place],
            flops_reward=reward[place],
            flops_executed_policy=executed_policy[place],
            flops_executed_reward=executed_reward[place],
            reward_calls=calls[place],
        )
        for place, prompt in enumerate(prompts)
    ]
    return results, outcome.trees


def _scorer(block: Block, settings: Settings, width: int) -> MRMScorer | PRMScorer:
    models, prompts = block.models, block.prompts
    if settings.scorer == "prm":
        return PRMScorer(models, [prompt.guard_ids for prompt in prompts])
    mrm = mrm_of(models)
    unseen = unseen_tokens(models, settings) if settings.conservative else None
    mrm_ids = [prompt.mrm_ids for prompt in prompts]
    return MRMScorer(mrm, mrm_ids, unseen, width=width, max_new_tokens=block.max_new_tokens)
