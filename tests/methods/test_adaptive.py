"""Adaptive Best-of-N against a reference that draws one sample after another, and against Best-of-N."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from methods.small import SUFFIX, VOCABULARY, block_of, models_of, plain_of, prompts_of
from pydantic import ValidationError

from saffron.engine.compute import ModelShape
from saffron.methods import best_of_n, discovery, frontier
from saffron.methods.adaptive_best_of_n import Settings
from saffron.methods.adaptive_best_of_n.search import looks, search


@hypothesis_settings(max_examples=10)
@given(
    seed=st.integers(0, 10**6),
    first=st.integers(1, 3),
    enough=st.sampled_from([-0.3, 0.0, 0.5, 9.0]),
    hopeless=st.sampled_from([None, -0.4]),
    budgets=st.sampled_from([[1], [2, 5], [3, 6]]),
    limit=st.integers(1, 4),
)
def test_equals_a_reference_that_draws_one_after_another(
    seed: int, first: int, enough: float, hopeless: float | None, budgets: list[int], limit: int
) -> None:
    models, prompts = models_of(seed % 7, seed % VOCABULARY), prompts_of(seed % 1000, 3)
    settings = Settings(first=first, enough=enough, hopeless=hopeless)
    results = iter(search(block_of(models, prompts, seed, limit), settings, budgets))
    policy, guard = ModelShape.from_config(models.policy.config), ModelShape.from_config(models.guard.config)
    for budget in budgets:
        for prompt in prompts:
            ref, drawn = plain_of(models, seed, limit), []
            look = first
            for index in range(budget):
                tokens: tuple[int, ...] = ()
                while not ref.complete(tokens):
                    tokens += (ref.sample(prompt, tokens, index),)
                drawn.append((tokens, ref.reward(prompt, tokens)))
                if len(drawn) == look:
                    look *= 2
                    best = max(reward for _, reward in drawn)
                    if best >= enough or (hopeless is not None and best < hopeless):
                        break
            result, expected = next(results), ref.best(drawn)
            assert (result.budget, result.prompt_id) == (budget, prompt.prompt_id)
            assert result.output_ids == expected.output_ids
            assert result.reward == pytest.approx(expected.reward, abs=1e-9)
            start, read = len(prompt.policy_ids), {tokens for tokens in ref.read if tokens}
            assert result.flops_policy == policy.chain(0, start) + sum(policy.chain(start + len(t) - 1, 1) for t in read)
            assert result.reward_calls == len(ref.verdicts)
            start = len(prompt.guard_ids)
            prefixes = {tokens[:length] for tokens in ref.verdicts for length in range(1, len(tokens) + 1)}
            said = sum(guard.chain(start + len(prefix) - 1, 1) for prefix in prefixes)
            asked = sum(guard.chain(start + len(tokens), len(SUFFIX)) for tokens in ref.verdicts)
            assert result.flops_reward == guard.chain(0, start) + said + asked


def test_where_nothing_is_ever_enough_it_is_best_of_n() -> None:
    models, prompts, budgets = models_of(1, 3), prompts_of(2, 4), [1, 2, 6]
    block = block_of(models, prompts, 0, 6)
    ours = search(block, Settings(enough=1e9), budgets)
    theirs = discovery.search("best_of_n")(block, best_of_n.Settings(), budgets)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.budget, a.prompt_id, a.output_ids, a.finished) == (b.budget, b.prompt_id, b.output_ids, b.finished)
        assert a.reward == pytest.approx(b.reward, abs=1e-9)
        assert (a.flops_policy, a.flops_reward, a.reward_calls) == (b.flops_policy, b.flops_reward, b.reward_calls)


def test_what_a_prompt_is_given_does_not_depend_on_the_others() -> None:
    models, prompts = models_of(2, 4), prompts_of(7, 6)
    block = block_of(models, prompts, 0, 8)
    first = discovery.search("best_of_n")(block, best_of_n.Settings(), [1])
    least, second, _, enough, _, _ = sorted(result.reward for result in first)
    settings = Settings(enough=enough, hopeless=(least + second) / 2)
    together = search(block, settings, [8])
    alone = [search(block_of(models, [prompt], 0, 8), settings, [8])[0] for prompt in prompts]
    assert len({result.reward_calls for result in together}) > 1, "every prompt is given as much"
    for a, b in zip(together, alone, strict=True):
        assert (a.prompt_id, a.output_ids, a.reward_calls) == (b.prompt_id, b.output_ids, b.reward_calls)
        assert (a.flops_policy, a.flops_reward) == (b.flops_policy, b.flops_reward)


def test_results_do_not_depend_on_what_the_host_has_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    block = block_of(models_of(1, 4), prompts_of(7, 5), 0, 8)
    seen = search(block, Settings(enough=0.5), [6])
    monkeypatch.setattr(frontier, "at_hand", lambda device: False)
    for a, b in zip(seen, search(block, Settings(enough=0.5), [6]), strict=True):
        assert (a.output_ids, a.flops_policy, a.flops_reward, a.reward_calls) == (
            b.output_ids,
            b.flops_policy,
            b.flops_reward,
            b.reward_calls,
        )
        assert a.reward == pytest.approx(b.reward, abs=1e-9)


def test_a_prompt_that_is_safe_at_once_computes_less() -> None:
    models, prompts = models_of(2, 4), prompts_of(7, 2)
    block = block_of(models, prompts, 0, 8)
    (some, _), (all_, _) = (search(block, Settings(enough=enough), [8]) for enough in (-1e9, 1e9))
    assert some.flops_executed_policy < all_.flops_executed_policy / 2
    assert some.flops_executed_reward < all_.flops_executed_reward / 2


@pytest.mark.parametrize(
    ("first", "most", "expected"), [(1, 1, [1]), (1, 8, [1, 2, 4, 8]), (3, 8, [3, 6, 8]), (9, 4, [4]), (4, 4, [4])]
)
def test_looks_double_up_to_the_budget(first: int, most: int, expected: list[int]) -> None:
    assert looks(first, most) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"first": 0}, "first"),
        ({"enough": "0"}, "enough"),
        ({"enough": -1.0, "hopeless": -1.0}, "hopeless -1 must be below enough -1"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(**given)
