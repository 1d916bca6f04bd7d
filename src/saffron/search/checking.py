"""Whether what a search method returned is what was asked for; a method from outside this package may return anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from saffron.methods.base import MethodError, Result, SearchPrompt

#: Numbers of a result that no search has below 0.
COUNTS = ("flops_policy", "flops_reward", "flops_executed_policy", "flops_executed_reward", "reward_calls")


def by_prompt(
    name: str,
    results: Any,
    prompts: Sequence[SearchPrompt],
    budgets: Sequence[int],
    *,
    new_tokens: int,
    vocabulary: int,
    eos_id: int,
    needs_reward: bool,
) -> list[dict[int, Result]]:
    """The results of one call of a method by prompt, in the order of the prompts, and by budget.

    Args:
        name: the method's, for messages.
        results: what it returned.
        prompts: what it was asked.
        budgets: at which budgets.
        new_tokens: how many tokens an output may have.
        vocabulary: how many ids there are.
        eos_id: of the token that ends an output.
        needs_reward: whether every output has a reward of the method's own.

    Raises:
        MethodError: if a result is missing, comes twice, was not asked for, or holds what no search can find; names the
            method, the prompt and the remedy.
    """
    found: dict[int, dict[int, Result]] = {prompt.prompt_id: {} for prompt in prompts}
    if isinstance(results, str) or not isinstance(results, Sequence):
        raise MethodError(f"search method {name}: gave a {type(results).__name__}; give a list of saffron.methods.base.Result")
    for result in results:
        if not isinstance(result, Result):
            raise MethodError(f"search method {name}: gave a {type(result).__name__} among its results; give Result alone")
        if result.prompt_id not in found or result.budget not in budgets:
            raise MethodError(
                f"search method {name}: gave a result of prompt {result.prompt_id} at budget {result.budget}, which its block "
                "did not ask for; take prompt_id from block.prompts and the budget as given"
            )
        of = f"search method {name}: prompt {result.prompt_id}, budget {result.budget}"
        if result.budget in found[result.prompt_id]:
            raise MethodError(f"{of}: two results; give one per prompt and budget")
        problem = _problem(result, new_tokens, vocabulary, eos_id, needs_reward)
        if problem:
            raise MethodError(f"{of}: {problem}")
        found[result.prompt_id][result.budget] = result
    for prompt_id, own in found.items():
        missing = [budget for budget in budgets if budget not in own]
        if missing:
            raise MethodError(
                f"search method {name}: prompt {prompt_id}, budget {missing[0]}: no result; give one per prompt and budget"
            )
    return [found[prompt.prompt_id] for prompt in prompts]


def _problem(result: Result, new_tokens: int, vocabulary: int, eos_id: int, needs_reward: bool) -> str | None:
    """What of a result no search can find, with the remedy; None if nothing."""
    output = result.output_ids
    if isinstance(output, str) or not isinstance(output, Sequence) or not all(_is_id(token, vocabulary) for token in output):
        return f"output_ids must be a list of token ids below {vocabulary}; .tolist() makes one of a tensor"
    if not 1 <= len(output) <= new_tokens:
        return f"{len(output)} output_ids; give 1 to {new_tokens} new tokens (search.max_new_tokens), without the prefilled ones"
    if eos_id in output[:-1]:
        return "output_ids go on behind the end of the text; cut them after EOS"
    if bool(result.finished) != (output[-1] == eos_id):
        return f"finished is {result.finished}, but the output {'ends' if output[-1] == eos_id else 'does not end'} with EOS"
    if result.reward is None and needs_reward:
        return "no reward; give one, or say in METHOD.may_lack_reward when there is none"
    if result.reward is not None and (isinstance(result.reward, bool) or not isinstance(result.reward, Real)):
        return f"reward is a {type(result.reward).__name__}; give a float (.item() makes one of a tensor) or None"
    for key in COUNTS:
        value = getattr(result, key)
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < 0:
            return f"{key} is {value!r}; give a finite number of at least 0"
    return None


def _is_id(token: Any, vocabulary: int) -> bool:
    return isinstance(token, Integral) and not isinstance(token, bool) and 0 <= int(token) < vocabulary
