"""Saffron-1 on token ids, for people with their own models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from saffron.search.saffron import MRMScorer, Semantics, search

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

    Args:
        policy: causal LM of the Llama, Mistral, Qwen2 or Qwen3 class, in eval mode.
        mrm: multifurcation reward model over the same vocabulary, on the same device: its logits are the rewards of all
            next tokens. A bias of its unembedding is used.
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
        TrieError: if a model is of a class the engine cannot drive, or a prompt is empty.
        ValueError: if another argument is out of range.
    """
    _check(policy, mrm, prompt_ids, mrm_prompt_ids, width, top_p, max_new_tokens, eos_token_id, unseen, semantics)
    if not prompt_ids:
        return []
    read = prompt_ids if mrm_prompt_ids is None else mrm_prompt_ids
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


def _check(
    policy: PreTrainedModel,
    mrm: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    mrm_prompt_ids: Sequence[Sequence[int]] | None,
    width: int,
    top_p: float,
    max_new_tokens: int,
    eos_token_id: int,
    unseen: Tensor | None,
    semantics: str,
) -> None:
    vocabulary = policy.config.vocab_size
    if mrm.config.vocab_size != vocabulary:
        raise ValueError(
            f"policy and mrm have vocabularies of {vocabulary} and {mrm.config.vocab_size} tokens; they must share one"
        )
    if width < 1:
        raise ValueError(f"width must be at least 1, not {width}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], not {top_p}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must not be negative, not {max_new_tokens}")
    if not 0 <= eos_token_id < vocabulary:
        raise ValueError(f"eos_token_id {eos_token_id} is outside the vocabulary of {vocabulary} tokens")
    if unseen is not None and tuple(unseen.shape) != (vocabulary,):
        raise ValueError(f"unseen must have shape ({vocabulary},), not {tuple(unseen.shape)}")
    if mrm_prompt_ids is not None and len(mrm_prompt_ids) != len(prompt_ids):
        raise ValueError(f"{len(prompt_ids)} prompts but {len(mrm_prompt_ids)} prompts for the mrm")
    if semantics not in ("paper", "released"):
        raise ValueError(f"semantics must be paper or released, not {semantics!r}")
