"""Every baseline against a reference without tries, caches or batches: token for token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import placed
import pytest
import torch
from analytic import nominal_best_of_n
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from methods import reference_baselines as plain
from methods.reference_baselines import Answer, Reference
from transformers import LlamaConfig, LlamaForCausalLM
from tries import tries

from saffron.chat import ChatFormat, ChatFormats
from saffron.engine.compute import ModelShape
from saffron.methods import beam_search, best_of_n, deal, discovery, frontier, no_defense, rebase
from saffron.methods.base import Block, MethodError, Result, SearchModels, SearchPrompt
from saffron.methods.random import RandomKey

VOCABULARY = 13
SUFFIX = (3, 1, 4, 1)


@lru_cache(maxsize=64)
def tiny(seed: int, dtype: torch.dtype, hidden: int = 16) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.4,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(shape).to(dtype)
    if dtype == torch.float64:  # the stock norm computes in float32 whatever its input
        for layer in model.model.layers:
            layer.input_layernorm = torch.nn.RMSNorm(hidden, eps=1e-6, dtype=dtype)
            layer.post_attention_layernorm = torch.nn.RMSNorm(hidden, eps=1e-6, dtype=dtype)
        model.model.norm = torch.nn.RMSNorm(hidden, eps=1e-6, dtype=dtype)
    return model.to(placed.DEVICE).eval().requires_grad_(False)


def models_of(seed: int, eos: int, dtype: torch.dtype = torch.float64) -> SearchModels:
    formats = ChatFormats(
        policy=ChatFormat((1,), (2,), ()),
        guard=ChatFormat((5, 6), (7,), SUFFIX),
        mrm=ChatFormat((5,), (7,), ()),
        safe_id=8,
        unsafe_id=9,
        eos_id=eos,
    )
    return SearchModels(policy=tiny(seed, dtype), guard=tiny(seed + 1000, dtype), formats=formats)


def prompts_of(seed: int, count: int) -> list[SearchPrompt]:
    generator = np.random.default_rng(seed)
    prompts = []
    for i in range(count):
        ids, prefill = (generator.integers(0, VOCABULARY, int(generator.integers(1, 7))).tolist() for _ in range(2))
        prompts.append(SearchPrompt(10 * seed + i, [1, *ids, 2, *prefill], [5, 6, *ids, 7], [5, *ids, 7]))
    return prompts


def search(
    name: str, models: SearchModels, prompts: list[SearchPrompt], settings: Any, budgets: list[int], seed: int, limit: int
) -> list[Result]:
    return discovery.search(name)(Block(models, prompts, RandomKey("guild_a", seed), limit), settings, budgets)


def reference(models: SearchModels, seed: int, limit: int) -> Reference:
    return Reference(
        models.policy, models.guard, models.formats, RandomKey("guild_a", seed), limit, logits_of=FORWARDS[models.policy]
    )


#: What each pair of models said, by policy: a full forward of the same ids need not be repeated from test to test.
FORWARDS: dict[torch.nn.Module, dict[tuple[bool, tuple[int, ...]], torch.Tensor]] = defaultdict(dict)


#: name, settings, the same as a function of the reference, prompt and budget
Case = tuple[str, Any, Callable[[Reference, SearchPrompt, int], Answer]]


def case_no_defense() -> Case:
    return "no_defense", no_defense.Settings(), lambda ref, prompt, budget: plain.no_defense(ref, prompt)


def case_best_of_n() -> Case:
    return "best_of_n", best_of_n.Settings(), plain.best_of_n


def case_beam_search(children: int) -> Case:
    return "beam_search", beam_search.Settings(children=children), partial(plain.beam_search, children=children)


def case_deal(children: int, lookahead: int, reward_weight: float) -> Case:
    settings = deal.Settings(children=children, lookahead=lookahead, reward_weight=reward_weight)
    return "deal", settings, partial(plain.deal, children=children, lookahead=lookahead, reward_weight=reward_weight)


def case_rebase(step_tokens: int, temperature: float, widths: Any, weights: Any) -> Case:
    settings = rebase.Settings(step_tokens=step_tokens, balance_temperature=temperature, widths=widths, weights=weights)
    return (
        "rebase",
        settings,
        partial(plain.rebase, step_tokens=step_tokens, temperature=temperature, widths=widths, weights=weights),
    )


CASES = st.one_of(
    st.builds(case_no_defense),
    st.builds(case_best_of_n),
    st.builds(case_beam_search, st.integers(1, 4)),
    st.builds(case_deal, st.integers(1, 3), st.integers(0, 4), st.sampled_from([0.0, 0.3, 1.0])),
    st.builds(
        case_rebase,
        st.integers(1, 4),
        st.sampled_from([0.1, 1.0]),
        st.sampled_from(["paper", "release"]),
        st.sampled_from(["sigmoid", "logit"]),
    ),
)
#: one of each kind, for the tests that are not random
FIXED = [
    case_no_defense(),
    case_best_of_n(),
    case_beam_search(2),
    case_deal(2, 0, 0.5),
    case_deal(2, 2, 0.5),
    case_rebase(1, 0.1, "release", "sigmoid"),
    case_rebase(3, 1.0, "paper", "logit"),
]
IDS = ["no_defense", "best_of_n", "beam_search", "deal-0", "deal-2", "rebase-release", "rebase-paper"]


def check(result: Result, expected: Answer, tolerance: float) -> None:
    assert result.output_ids == expected.output_ids
    assert result.finished == expected.finished
    if expected.reward is None:
        assert result.reward is None
    else:
        assert result.reward == pytest.approx(expected.reward, abs=tolerance)


@hypothesis_settings(max_examples=tries(20))
@given(
    CASES,
    st.integers(0, 5),
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(0, VOCABULARY - 1),
    st.integers(1, 10),
)
def test_agrees_with_the_reference_in_float64(
    case: Case, model: int, seed: int, count: int, budget: int, eos: int, limit: int
) -> None:
    name, settings, answer = case
    models, prompts = models_of(model, eos), prompts_of(seed, count)
    for prompt, result in zip(prompts, search(name, models, prompts, settings, [budget], seed, limit), strict=True):
        check(result, answer(reference(models, seed, limit), prompt, budget), 1e-9)


@hypothesis_settings(max_examples=tries(12))
@given(CASES, st.integers(0, 5), st.integers(0, 10**6), st.integers(1, 4), st.integers(0, VOCABULARY - 1))
def test_agrees_with_the_reference_in_float32_where_no_decision_is_close(
    case: Case, model: int, seed: int, budget: int, eos: int
) -> None:
    name, settings, answer = case
    models, prompts = models_of(model, eos, torch.float32), prompts_of(seed, 2)
    compared = 0
    for prompt, result in zip(prompts, search(name, models, prompts, settings, [budget], seed, 7), strict=True):
        ref = reference(models, seed, 7)
        expected = answer(ref, prompt, budget)
        if ref.margin > 1e-5:
            check(result, expected, 1e-3)
            compared += 1
    assume(compared)


@pytest.mark.parametrize("case", FIXED, ids=IDS)
def test_eos_at_every_position(case: Case) -> None:
    """Each token of an answer that never ends is made EOS in turn, so that this sequence ends there."""
    name, settings, answer = case
    limit = 7
    ended = set()
    for prompt in prompts_of(3, 2):
        endless = answer(reference(models_of(2, -1), 3, limit), prompt, 3).output_ids
        assert len(endless) == limit
        for eos in endless:
            models = models_of(2, eos)
            (result,) = search(name, models, [prompt], settings, [3], 3, limit)
            check(result, answer(reference(models, 3, limit), prompt, 3), 1e-9)
            if name == "no_defense":
                assert result.output_ids == endless[: endless.index(eos) + 1]
            if result.finished:
                ended.add(len(result.output_ids))
    assert len(ended) >= 3


@pytest.mark.parametrize("case", FIXED, ids=IDS)
def test_results_do_not_depend_on_the_batch(case: Case) -> None:
    name, settings, _ = case
    models, prompts = models_of(1, 4), prompts_of(7, 5)
    together = search(name, models, prompts, settings, [4], 0, 12)
    alone = [search(name, models, [prompt], settings, [4], 0, 12)[0] for prompt in prompts]
    for a, b in zip(together, alone, strict=True):
        assert (a.prompt_id, a.output_ids, a.finished) == (b.prompt_id, b.output_ids, b.finished)
        assert (a.flops_policy, a.flops_reward, a.reward_calls) == (b.flops_policy, b.flops_reward, b.reward_calls)
    assert len({tuple(result.output_ids) for result in together}) > 1


@pytest.mark.parametrize("case", FIXED, ids=IDS)
def test_results_do_not_depend_on_what_the_host_has_at_hand(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU filler is read instead of looking how many rows there are; only the executed compute may differ."""
    name, settings, _ = case
    models, prompts = models_of(1, 4), prompts_of(7, 5)
    seen = search(name, models, prompts, settings, [4], 0, 12)
    monkeypatch.setattr(frontier, "at_hand", lambda device: False)
    unseen = search(name, models, prompts, settings, [4], 0, 12)
    for a, b in zip(seen, unseen, strict=True):
        check(a, Answer(b.output_ids, b.reward, b.finished), 1e-9)
        assert (a.flops_policy, a.flops_reward, a.reward_calls) == (b.flops_policy, b.flops_reward, b.reward_calls)
        assert a.flops_executed_policy <= b.flops_executed_policy and a.flops_executed_reward <= b.flops_executed_reward
    if name == "rebase" and placed.DEVICE.type == "cpu":  # beside a GPU the host has nothing at hand in either run
        assert sum(a.flops_executed_reward for a in seen) < sum(b.flops_executed_reward for b in unseen)


@pytest.mark.parametrize("case", FIXED, ids=IDS)
def test_every_token_is_paid_once_and_every_verdict_is_of_another_response(case: Case) -> None:
    name, settings, answer = case
    models, limit = models_of(4, 6), 9
    policy, guard = ModelShape.from_config(models.policy.config), ModelShape.from_config(models.guard.config)
    for prompt in prompts_of(11, 3):
        (result,) = search(name, models, [prompt], settings, [4], 5, limit)
        ref = reference(models, 5, limit)
        answer(ref, prompt, 4)
        start = len(prompt.policy_ids)
        fed = sum(policy.chain(start + len(tokens) - 1, 1) for tokens in ref.read if tokens)
        assert result.flops_policy == policy.chain(0, start) + fed
        assert result.reward_calls == len(ref.verdicts)
        if not ref.verdicts:
            assert result.flops_reward == 0
            continue
        start = len(prompt.guard_ids)
        prefixes = {tokens[:length] for tokens in ref.verdicts for length in range(1, len(tokens) + 1)}
        tokens = sum(guard.chain(start + len(prefix) - 1, 1) for prefix in prefixes)
        suffixes = sum(guard.chain(start + len(response), len(SUFFIX)) for response in ref.verdicts)
        assert result.flops_reward == guard.chain(0, start) + tokens + suffixes


def test_smaller_budgets_of_best_of_n_are_prefixes_of_one_sampling() -> None:
    models, prompts = models_of(0, 3), prompts_of(5, 3)
    budgets = [1, 2, 5, 8]
    chosen = best_of_n.Settings()
    together = search("best_of_n", models, prompts, chosen, budgets, 0, 9)
    apart = [
        result for budget in budgets for result in search("best_of_n", models, prompts, best_of_n.Settings(), [budget], 0, 9)
    ]
    for a, b in zip(together, apart, strict=True):
        assert (a.budget, a.prompt_id, a.output_ids, a.reward_calls) == (b.budget, b.prompt_id, b.output_ids, b.reward_calls)
        assert a.reward == pytest.approx(b.reward, abs=1e-12)
        assert (a.flops_policy, a.flops_reward) == (b.flops_policy, b.flops_reward)
    assert together[0].output_ids == search("no_defense", models, prompts, no_defense.Settings(), [0], 0, 9)[0].output_ids


def test_best_of_n_costs_what_the_analytic_row_says_when_samples_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    models, prompts, limit = models_of(0, VOCABULARY - 1), prompts_of(2, 2), 6
    draws = iter(range(limit))

    def all_different(logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        next(draws)
        return placed.arange(uniforms.shape[1]).expand(uniforms.shape)

    monkeypatch.setattr("saffron.methods.sampling.inverse_cdf", all_different)
    policy, guard = ModelShape.from_config(models.policy.config), ModelShape.from_config(models.guard.config)
    results = search("best_of_n", models, prompts, best_of_n.Settings(), [1, 4, 8], 0, limit)
    for result in results:
        prompt = next(prompt for prompt in prompts if prompt.prompt_id == result.prompt_id)
        assert (result.flops_policy, result.flops_reward) == nominal_best_of_n(
            policy,
            guard,
            n=result.budget,
            new_tokens=limit,
            policy_prompt=len(prompt.policy_ids),
            guard_prompt=len(prompt.guard_ids),
            guard_suffix=len(SUFFIX),
        )
        assert result.reward_calls == result.budget


def test_equal_candidates_are_taken_in_generation_order() -> None:
    """A guard and a policy that find everything equally good leave the first of everything."""
    models = models_of(0, VOCABULARY - 1)
    flat = LlamaForCausalLM(models.policy.config).double().to(placed.DEVICE).eval().requires_grad_(False)
    for parameter in flat.parameters():
        parameter.zero_()
    models = SearchModels(policy=flat, guard=flat, formats=models.formats)
    prompts = prompts_of(0, 1)
    for name, settings in (("beam_search", beam_search.Settings(children=3)), ("deal", deal.Settings(children=3, lookahead=2))):
        (result,) = search(name, models, prompts, settings, [2], 0, 4)
        assert result.output_ids == [0, 0, 0, 0]
    (result,) = search("best_of_n", models, prompts, best_of_n.Settings(), [6], 0, 4)
    assert result.output_ids == search("no_defense", models, prompts, no_defense.Settings(), [0], 0, 4)[0].output_ids


def test_an_unknown_method_is_named_with_the_known_ones() -> None:
    with pytest.raises(MethodError, match="best_of_n"):
        discovery.method("best_of_m")
