"""Archive search against a reference without tries or caches, and beside Saffron-1."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import placed
import pytest
import torch
from benchmarks.profiling import HostReads
from hypothesis import example, given, settings
from hypothesis import strategies as st
from methods.test_saffron import EOS, FORMATS, SEARCH_PROMPTS, VOCAB, model, reference
from pydantic import ValidationError
from tries import tries

from saffron.engine.compute import ModelShape
from saffron.methods import archive_search, discovery, frontier, saffron
from saffron.methods.base import Block, MethodError, Result, SearchModels, SearchPrompt
from saffron.methods.random import RandomKey


def searched(models: SearchModels, prompts: list[SearchPrompt], width: int, limit: int, **chosen: Any) -> list[Result]:
    block = Block(models, prompts, RandomKey("guild_a", 0), limit)
    return discovery.search("archive_search")(block, archive_search.Settings(**chosen), [width])


@settings(max_examples=tries(12))
@given(
    seed=st.integers(0, 10_000),
    width=st.integers(1, 4),
    returns=st.integers(0, 3),
    scale=st.sampled_from([0.5, 3.0]),
    top_p=st.sampled_from([0.2, 0.8]),
    limits=st.sampled_from([(1, 0), (4, 0), (7, 3), (10, 1)]),
    unseen_share=st.sampled_from([None, 0.5]),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
@example(seed=6916, width=3, returns=1, scale=0.5, top_p=0.2, limits=(4, 0), unseen_share=0.5, lengths=[1, 4])
def test_equals_the_reference_token_for_token(seed, width, returns, scale, top_p, limits, unseen_share, lengths):
    random = np.random.default_rng(seed)
    policy, mrm = model(seed, scale=scale), model(seed + 1)
    policy.lm_head.weight[EOS] *= 1 + seed % 2
    unseen = None if unseen_share is None else torch.from_numpy(random.random(VOCAB) < unseen_share).to(placed.DEVICE)
    ids = [random.integers(0, VOCAB, n).tolist() for n in lengths]
    prompts = [SearchPrompt(number, each, [0], each[::-1]) for number, each in enumerate(ids)]
    models = SearchModels(policy, None, FORMATS, mrm, unseen)
    chosen = {"returns": returns, "top_p": top_p, "min_new_tokens": limits[1]}
    seen = None if unseen is None else [bool(each) and token != EOS for token, each in enumerate(unseen)]
    shape = ModelShape.from_config(policy.config)
    for prompt, result in zip(prompts, searched(models, prompts, width, limits[0], **chosen), strict=True):
        wanted, margin, read = reference.archive_reference(
            policy,
            reference.multifurcation_rewards(mrm, prompt.mrm_ids),
            prompt.policy_ids,
            width=width,
            max_new_tokens=limits[0],
            eos=EOS,
            unseen=seen,
            **chosen,
        )
        if margin > 1e-12:
            assert result.output_ids == wanted.tokens
            assert result.reward == pytest.approx(wanted.reward, abs=1e-9)
            assert result.finished == wanted.finished
            assert result.reward_calls == len(read)  # going back reads nothing again
            start = len(prompt.policy_ids)
            fed = sum(shape.chain(start + len(tokens) - 1, 1) for tokens in read if tokens)
            assert result.flops_policy == shape.chain(0, start) + fed


def test_without_returns_it_is_saffron() -> None:
    policy, mrm = model(3, scale=3.0), model(4)
    models = SearchModels(policy, None, FORMATS, mrm)
    block = Block(models, SEARCH_PROMPTS, RandomKey("guild_a", 0), 12)
    usual = discovery.search("saffron")(block, saffron.Settings(min_new_tokens=2), [4])
    for ours, theirs in zip(searched(models, SEARCH_PROMPTS, 4, 12, returns=0, min_new_tokens=2), usual, strict=True):
        assert ours.reward == pytest.approx(theirs.reward, rel=1e-12)  # other batches: the last bit is the machine's
        executed = {"reward": 0.0, "flops_executed_policy": 0.0, "flops_executed_reward": 0.0}
        assert replace(ours, **executed) == replace(theirs, **executed)  # type: ignore[arg-type]


def test_more_returns_never_lower_the_reward_and_may_raise_it() -> None:
    raised = 0
    for seed in range(6):
        models = SearchModels(model(seed, scale=2.0), None, FORMATS, model(seed + 50))
        rewards = [
            [result.reward for result in searched(models, SEARCH_PROMPTS, 2, 8, returns=returns, min_new_tokens=2)]
            for returns in (0, 1)
        ]
        for before, after in zip(*rewards, strict=True):
            assert before is not None and after is not None and after >= before
            raised += after > before
    assert raised


def test_neither_the_batch_nor_what_the_host_has_at_hand_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, mrm = model(13, scale=4.0), model(14)
    policy.lm_head.weight[EOS] *= 2
    models = SearchModels(policy, None, FORMATS, mrm)
    prompts = [*SEARCH_PROMPTS, SearchPrompt(2, [1, 5, 6, 7, 2], [5, 7], [5, 6, 7])]
    chosen = {"returns": 2, "min_new_tokens": 1}
    together = searched(models, prompts, 3, 12, **chosen)
    alone = [searched(models, [prompt], 3, 12, **chosen)[0] for prompt in prompts]
    monkeypatch.setattr(frontier, "at_hand", lambda device: False)  # as on a GPU
    unseen = searched(models, prompts, 3, 12, **chosen)
    for each in zip(together, alone, unseen, strict=True):
        assert len({(tuple(r.output_ids), r.flops_policy, r.flops_reward, r.reward_calls) for r in each}) == 1


def test_the_host_reads_once_per_compaction_and_not_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontier, "at_hand", lambda device: False)  # as on a GPU
    policy, mrm = model(31, bias=True), model(33)
    policy.lm_head.bias[EOS] = -1e4
    models = SearchModels(policy, None, FORMATS, mrm)

    def reads(limit: int) -> int:
        with HostReads() as counter:
            searched(models, SEARCH_PROMPTS, 4, limit, returns=1)
        return len(counter.calls)

    assert reads(8) == reads(5) == reads(4) + 1  # 16, 10 and 8 steps, every eighth of which looks, but the last


def test_it_needs_an_mrm_and_settings_in_range() -> None:
    with pytest.raises(MethodError, match="needs an MRM"):
        searched(SearchModels(model(0), None, FORMATS), SEARCH_PROMPTS, 2, 4)
    for wrong in ({"returns": -1}, {"top_p": 0.0}, {"returns": 1.5}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            archive_search.Settings(**wrong)
