"""Selective Saffron-1: the sample of no defense, or the search of Saffron-1, by one comparison; and what both cost."""

from __future__ import annotations

import math
from dataclasses import replace

import placed
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from methods import reference
from methods import reference_baselines as plain
from methods.small import SUFFIX, VOCABULARY, block_of, model, models_of, plain_of, predicted, process_rewards, prompts_of
from pydantic import ValidationError

from saffron.engine.compute import ModelShape
from saffron.methods import discovery, no_defense, saffron
from saffron.methods.base import Size
from saffron.methods.saffron.selection import UNSEEN_REWARD
from saffron.methods.selective_saffron import Settings, cost
from saffron.methods.selective_saffron.search import search


@hypothesis_settings(max_examples=10)
@given(
    seed=st.integers(0, 10**6),
    threshold=st.sampled_from([-1.0, -0.2, 0.0, 0.2]),
    scorer=st.sampled_from(["mrm", "prm"]),
    width=st.integers(1, 2),
    limit=st.integers(1, 4),
    share=st.sampled_from([0.0, 0.3]),
)
def test_equals_a_reference_without_tries(seed: int, threshold: float, scorer: str, width: int, limit: int, share: float) -> None:
    eos = seed % VOCABULARY
    unseen = torch.rand(VOCABULARY, generator=torch.Generator().manual_seed(seed)) < share
    models = models_of(seed % 7, eos, unseen=unseen.to(placed.DEVICE))
    prompts = prompts_of(seed % 1000, 2)
    settings = Settings(threshold=threshold, scorer=scorer, min_new_tokens=1, top_p=0.7, reward_reads_prefill=False)
    unseen[eos] = False
    for prompt, result in zip(prompts, search(block_of(models, prompts, seed, limit), settings, width), strict=True):
        ref = plain_of(models, seed, limit)
        sample = plain.no_defense(ref, prompt).output_ids
        if scorer == "prm":
            expected = ref.reward(prompt, tuple(sample))
            rewards = process_rewards(models.guard, prompt)
        else:
            expected = UNSEEN_REWARD if unseen[sample[-1]] else predicted(models.mrm, prompt, sample)
            rewards = reference.multifurcation_rewards(models.mrm, prompt.mrm_ids)
        if expected >= threshold:
            assert (result.output_ids, result.reward_calls) == (sample, 1)
            assert result.reward == pytest.approx(expected, abs=1e-6)
            continue
        found = reference.saffron_reference(
            models.policy,
            rewards,
            prompt.policy_ids,
            width=width,
            top_p=0.7,
            max_new_tokens=limit,
            min_new_tokens=1,
            eos=eos,
            unseen=unseen.tolist() if scorer == "mrm" else None,
            semantics="paper",
        )
        if found.margin > 1e-6:
            assert result.output_ids == found.tokens
            assert result.reward == pytest.approx(found.reward, abs=1e-5)


@pytest.mark.parametrize("scorer", ["mrm", "prm"])
def test_at_either_end_it_is_no_defense_or_saffron(scorer: str) -> None:
    models, prompts = models_of(1, 3), prompts_of(2, 5)
    block = block_of(models, prompts, 0, 6)
    outputs = lambda name, settings, budget: [  # noqa: E731
        result.output_ids for result in discovery.search(name)(block, settings, [budget])
    ]
    given = {"scorer": scorer, "min_new_tokens": 1}
    never, always = Settings(threshold=-1e9, **given), Settings(threshold=1e9, **given)
    assert outputs("selective_saffron", never, 3) == outputs("no_defense", no_defense.Settings(), 0)
    assert outputs("selective_saffron", always, 3) == outputs("saffron", saffron.Settings(**given), 3)


@pytest.mark.parametrize("scorer", ["mrm", "prm"])
def test_both_parts_are_paid_and_their_prompt_once(scorer: str) -> None:
    models, prompts, limit = models_of(1, 3), prompts_of(2, 5), 6
    given = {"scorer": scorer, "min_new_tokens": 1}
    block = block_of(models, prompts, 0, limit)
    policy, guard = ModelShape.from_config(models.policy.config), ModelShape.from_config(models.guard.config)
    samples = discovery.search("no_defense")(block, no_defense.Settings(), [0])
    searched = discovery.search("saffron")(block, saffron.Settings(**given), [2])
    for threshold in (-1e9, 1e9):
        results = search(block, Settings(threshold=threshold, **given), 2)
        for prompt, result, sample, found in zip(prompts, results, samples, searched, strict=True):
            start = len(prompt.guard_ids if scorer == "prm" else prompt.mrm_ids)
            read = len(sample.output_ids) + len(SUFFIX) if scorer == "prm" else len(sample.output_ids) - 1
            reading = guard.chain(0, start + read)
            if threshold < 0:
                assert (result.flops_policy, result.flops_reward) == (sample.flops_policy, reading)
                continue
            both = sample.flops_policy + found.flops_policy - policy.chain(0, len(prompt.policy_ids))
            assert result.flops_policy == both
            assert result.flops_reward == reading + found.flops_reward - guard.chain(0, start)
            assert result.reward_calls == 1 + found.reward_calls
            assert result.flops_executed_policy == sample.flops_executed_policy + found.flops_executed_policy


def test_results_do_not_depend_on_the_batch() -> None:
    models, prompts = models_of(2, 4), prompts_of(7, 6)
    settings = Settings(threshold=0.0, min_new_tokens=1)
    together = search(block_of(models, prompts, 0, 8), settings, 3)
    alone = [search(block_of(models, [prompt], 0, 8), settings, 3)[0] for prompt in prompts]
    assert len({result.reward_calls == 1 for result in together}) == 2, "none stands, or all do"
    for a, b in zip(together, alone, strict=True):
        assert (a.prompt_id, a.output_ids, a.finished, a.reward_calls) == (b.prompt_id, b.output_ids, b.finished, b.reward_calls)
        assert (a.flops_policy, a.flops_reward) == (b.flops_policy, b.flops_reward)


@pytest.mark.parametrize("scorer", ["mrm", "prm"])
def test_the_planned_cost_is_that_of_the_parts(scorer: str) -> None:
    shape = ModelShape.from_config(model(0).config)
    size = Size(2, 5, None, policy_prompt=7, guard_prompt=6, mrm_prompt=4, guard_suffix=4, policy=shape, guard=shape)
    settings = Settings(scorer=scorer)
    full = saffron.cost(settings, size)
    start, read = (6, 5 + 4) if scorer == "prm" else (4, 4)
    assert cost(settings, size) == (full[0] + shape.chain(7, 4), full[1] + shape.chain(start, read))
    assert cost(settings, replace(size, calls=1.0)) == (shape.chain(0, 7 + 4), shape.chain(0, start + read))
    assert cost(settings, replace(size, calls=4.0))[0] < cost(settings, replace(size, calls=6.0))[0]


def test_a_threshold_is_a_number() -> None:
    for wrong in ("high", math.nan, math.inf):
        with pytest.raises(ValidationError, match="threshold"):
            Settings(threshold=wrong)


def test_a_reward_that_is_not_a_number_is_refused() -> None:
    broken = model(99)
    broken.lm_head.bias[:] = torch.nan
    with pytest.raises(ValueError, match="reward model's rewards"):
        search(block_of(models_of(0, 3, mrm=broken), prompts_of(0, 2), 0, 4), Settings(), 2)
