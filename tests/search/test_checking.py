"""What a method from outside may return, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from saffron.methods.base import MethodError, Result, SearchPrompt
from saffron.search import checking

EOS = 9
PROMPTS = [SearchPrompt(prompt_id, [1], [1], [1]) for prompt_id in (4, 2)]
SOUND = Result(
    prompt_id=4,
    budget=1,
    output_ids=[3, EOS],
    reward=0.5,
    finished=True,
    flops_policy=1.0,
    flops_reward=0.0,
    flops_executed_policy=1.0,
    flops_executed_reward=0.0,
    reward_calls=0,
)
ALL = [replace(SOUND, prompt_id=prompt_id, budget=budget) for budget in (1, 2) for prompt_id in (2, 4)]


def by_prompt(results: Any, *, needs_reward: bool = True) -> list[dict[int, Result]]:
    return checking.by_prompt(
        "mine", results, PROMPTS, [1, 2], new_tokens=3, vocabulary=10, eos_id=EOS, needs_reward=needs_reward
    )


def test_results_stand_in_the_order_of_the_prompts_whatever_their_own() -> None:
    found = by_prompt(tuple(ALL))
    assert [[result.prompt_id for result in own.values()] for own in found] == [[4, 4], [2, 2]]
    assert [sorted(own) for own in found] == [[1, 2], [1, 2]]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (None, r"search method mine: gave a NoneType; give a list of"),
        ("text", r"gave a str; give a list of"),
        ([(4, [3])], r"gave a tuple among its results; give Result alone"),
        (
            [replace(SOUND, prompt_id=0)],
            r"gave a result of prompt 0 at budget 1, which its block did not ask for; take prompt_id",
        ),
        ([replace(SOUND, budget=8)], r"gave a result of prompt 4 at budget 8, which its block did not ask for"),
        ([SOUND, SOUND], r"mine: prompt 4, budget 1: two results; give one per prompt and budget"),
        (ALL[:-1], r"mine: prompt 4, budget 2: no result; give one per prompt and budget"),
        ([], r"mine: prompt 4, budget 1: no result"),
    ],
)
def test_one_result_per_prompt_and_budget(results: Any, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        by_prompt(results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"output_ids": torch.tensor([3, EOS])},
            r"prompt 4, budget 1: output_ids must be a list of token ids below 10; \.tolist",
        ),
        ({"output_ids": [10]}, "output_ids must be a list of token ids below 10"),
        ({"output_ids": [-1]}, "output_ids must be a list of token ids below 10"),
        ({"output_ids": [2.0]}, "output_ids must be a list of token ids below 10"),
        ({"output_ids": []}, r"0 output_ids; give 1 to 3 new tokens \(search.max_new_tokens\), without the prefilled ones"),
        ({"output_ids": [1, 2, 3, 4]}, "4 output_ids; give 1 to 3 new tokens"),
        ({"output_ids": [EOS, 3]}, "output_ids go on behind the end of the text; cut them after EOS"),
        ({"finished": False}, "finished is False, but the output ends with EOS"),
        ({"output_ids": [3]}, "finished is True, but the output does not end with EOS"),
        ({"reward": None}, r"no reward; give one, or say in METHOD\.may_lack_reward when there is none"),
        ({"reward": torch.tensor(0.5)}, r"reward is a Tensor; give a float \(\.item\(\) makes one of a tensor\) or None"),
        ({"reward": True}, "reward is a bool; give a float"),
        ({"flops_policy": float("nan")}, "flops_policy is nan; give a finite number of at least 0"),
        ({"flops_executed_reward": -1.0}, "flops_executed_reward is -1.0; give a finite number"),
        ({"reward_calls": None}, "reward_calls is None; give a finite number"),
    ],
)
def test_a_result_holds_what_a_search_can_find(change: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        by_prompt([replace(SOUND, **change)])


def test_numpys_numbers_are_taken_and_a_reward_may_lack_where_the_method_says_so() -> None:
    change = {"output_ids": [np.int64(3)], "finished": np.bool_(False), "reward": np.float32(1.5), "reward_calls": np.int64(2)}
    assert by_prompt([replace(one, **change) for one in ALL])[0][1].reward == 1.5  # type: ignore[arg-type]
    assert by_prompt([replace(one, reward=None) for one in ALL], needs_reward=False)[0][1].reward is None
