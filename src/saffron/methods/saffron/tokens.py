"""Saffron-1 on token ids, for people with their own models."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING

from saffron.methods.checks import check_models, check_numbers, check_prompts, check_unseen, check_window
from saffron.methods.saffron.algorithm import MRMScorer, Semantics, search

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def search_tokens(
    policy: PreTrainedModel,
    mrm: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    *,
    width: int,
    top_p: float = 0.8,
    max_new_tokens: int = 32,
    min_new_tokens: int = 16,
    eos_token_id: int,
    unseen: Tensor | None = None,
    mrm_prompt_ids: Sequence[Sequence[int]] | None = None,
    semantics: Semantics = "paper",
) -> list[list[int]]:
    """Continue each prompt by Saffron-1 search (Eq. 2, 3 and 7 of the paper).

    Equal logits are ties, broken in generation order; whether two equal rows of an lm_head give equal logits is up to the
    rounding of the BLAS.

    Args:
        policy: causal LM of the Llama, Mistral, Qwen2 or Qwen3 class, in eval mode.
        mrm: multifurcation reward model over the same vocabulary, on the same device: its logits are the rewards of all
            next tokens. A bias of its lm_head is used, -inf in it too. Its dtype may differ from the policy's.
        prompt_ids: B lists of token ids, any forced beginning of the response included; lengths may differ.
        width: beam width N, at least 1.
        top_p: candidates are the smallest set of most likely tokens such that the mass before each is below this; in (0, 1].
        max_new_tokens: limit on the continuation, in tokens.
        min_new_tokens: EOS is forbidden while fewer tokens than this follow the prompt.
        eos_token_id: the token that ends a continuation.
        unseen: [V] bool, tokens the MRM never saw as a target; they score -1024, whatever the MRM says.
        mrm_prompt_ids: B lists of token ids the MRM reads in place of ``prompt_ids``.
        semantics: ``paper`` (children compete by their own rewards) or ``released`` (what the authors' code does).

    Returns:
        B continuations, each of at most ``max_new_tokens`` token ids, EOS included when reached.

    Raises:
        TrieError: if the engine cannot drive a model, or its sliding window is shorter than the longest prompt with its
            continuation; before anything is computed.
        TypeError: if an argument is of the wrong type, likewise.
        ValueError: if an argument is out of range, likewise; or if the policy's probabilities or the rewards turn out NaN.
    """
    check_models(policy=policy, mrm=mrm)
    vocabulary = policy.config.vocab_size
    check_numbers(
        {"width": 1, "max_new_tokens": 0, "min_new_tokens": 0, "eos_token_id": 0},
        {"width": width, "max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens, "eos_token_id": eos_token_id},
    )
    if eos_token_id >= vocabulary:
        raise ValueError(f"eos_token_id {eos_token_id} is outside the vocabulary of {vocabulary} tokens")
    if not isinstance(top_p, Real):
        raise TypeError(f"top_p must be a number, not {top_p!r}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], not {top_p}")
    if semantics not in ("paper", "released"):
        raise ValueError(f"semantics must be paper or released, not {semantics!r}")
    if unseen is not None:
        check_unseen(unseen, vocabulary)
    read = prompt_ids if mrm_prompt_ids is None else mrm_prompt_ids
    check_prompts("prompt_ids", prompt_ids, vocabulary)
    check_prompts("mrm_prompt_ids", read, vocabulary)
    if len(read) != len(prompt_ids):
        raise ValueError(f"prompt_ids holds {len(prompt_ids)} prompts but mrm_prompt_ids {len(read)}")
    check_window("policy", policy, prompt_ids, max_new_tokens)
    check_window("mrm", mrm, read, max_new_tokens)
    if not prompt_ids:
        return []
    scorer = MRMScorer(mrm, read, unseen, width=width, max_new_tokens=max_new_tokens)
    outcome = search(
        policy,
        scorer,
        prompt_ids,
        width=width,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        eos_token_id=eos_token_id,
        semantics=semantics,
    )
    return outcome.tokens
