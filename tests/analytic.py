"""Nominal FLOPs of full searches, written out by hand: what ledgers and plans are compared with."""

from __future__ import annotations

from saffron.engine.compute import ModelShape


def nominal_best_of_n(
    policy: ModelShape, guard: ModelShape, *, n: int, new_tokens: int, policy_prompt: int, guard_prompt: int, guard_suffix: int
) -> tuple[int, int]:
    """Nominal FLOPs per prompt of Best-of-N whose samples share nothing but the prompt and never end early.

    Args:
        policy: sizes of the policy.
        guard: sizes of the PRM.
        n: samples.
        new_tokens: tokens of each sample; the last one is not fed back to the policy.
        policy_prompt: prompt tokens of the policy, template and prefill included.
        guard_prompt: tokens the guard reads before the response.
        guard_suffix: tokens the guard reads after it.

    Returns:
        (policy FLOPs, PRM FLOPs).
    """
    generation = policy.chain(0, policy_prompt) + n * policy.chain(policy_prompt, new_tokens - 1)
    scoring = guard.chain(0, guard_prompt) + n * guard.chain(guard_prompt, new_tokens + guard_suffix)
    return generation, scoring


def nominal_saffron(
    policy: ModelShape, mrm: ModelShape, *, width: int, new_tokens: int, policy_prompt: int, mrm_prompt: int
) -> tuple[int, int]:
    """Nominal FLOPs per prompt of Saffron-1 whose beam is full from the first step and never ends early.

    Each step extends ``width`` sequences by one token in both models; the last token is fed to neither.

    Args:
        policy: sizes of the policy.
        mrm: sizes of the MRM.
        width: beam width N.
        new_tokens: token limit.
        policy_prompt: prompt tokens of the policy, template and prefill included.
        mrm_prompt: prompt tokens of the MRM.

    Returns:
        (policy FLOPs, MRM FLOPs).
    """
    generation = policy.chain(0, policy_prompt) + width * policy.chain(policy_prompt, new_tokens - 1)
    scoring = mrm.chain(0, mrm_prompt) + width * mrm.chain(mrm_prompt, new_tokens - 1)
    return generation, scoring
