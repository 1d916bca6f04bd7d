"""What every search method is given and gives back.

A method is a function over one *block* of prompts, written as ``propose → score → select`` on token tries
(:mod:`saffron.engine.trie`). It gets all budgets of its run at once, so that a method whose smaller budgets are part of its
largest (Best-of-N) can share the work; the others go through their budgets one by one. It draws no random number
except through :class:`RandomKey`, so its results do not depend on which prompts share a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from saffron.methods.random import RandomKey

if TYPE_CHECKING:
    from pydantic import BaseModel
    from torch import Tensor
    from transformers import PreTrainedModel

    from saffron.chat import ChatFormats

__all__ = ["Method", "RandomKey", "SearchModels", "SearchPrompt", "SearchResult", "SearchTree", "TreeCandidate", "TreeStep"]


@dataclass(frozen=True)
class SearchPrompt:
    """One prompt as each model reads it, up to where the new tokens are appended (token ids)."""

    prompt_id: int
    policy_ids: list[int]  # formatted prompt + prefilled tokens
    guard_ids: list[int]  # formatted prompt, + prefilled tokens if the method's reward_reads_prefill
    mrm_ids: list[int]  # the same in the MRM's format


@dataclass(frozen=True)
class SearchModels:
    """The models of a search, all on one device, and the chat formats with the verdict and EOS ids."""

    policy: PreTrainedModel
    guard: PreTrainedModel
    formats: ChatFormats
    mrm: PreTrainedModel | None = None
    unseen: Tensor | None = None  # bool [V]: tokens the MRM never saw as a target; EOS as eos_seen says


@dataclass(frozen=True)
class TreeCandidate:
    """A scored child of a beam node; ``node`` is its id if it entered the next beam."""

    parent: int
    token: int
    probability: float
    reward: float
    node: int | None


@dataclass(frozen=True)
class TreeStep:
    """One step of a recorded search: the beam's nodes (-1 is the prompt) and all candidates in generation order."""

    beam: list[int]
    candidates: list[TreeCandidate]


@dataclass(frozen=True)
class SearchTree:
    """A recorded search. Node ``i`` is ``nodes[i] = (parent, token)``, parents before children, -1 the prompt.

    ``tokens_read`` and ``context_read`` are the engine's own count of what the policy read, prompt included: unique tokens
    and the sum of their context lengths (:class:`saffron.engine.compute.Ledger`).
    """

    nodes: list[tuple[int, int]]
    steps: list[TreeStep]
    tokens_read: int
    context_read: int


@dataclass(frozen=True)
class SearchResult:
    """The output of one prompt at one budget, and what it cost (FLOPs of this prompt alone, see saffron.engine.compute)."""

    prompt_id: int
    budget: int
    output_ids: list[int]  # new tokens after the prefill, EOS included when reached
    reward: float | None  # the method's own reward of its output; None if it has none
    finished: bool  # whether the output ends with EOS (else it reached the length limit)
    flops_policy: float
    flops_reward: float
    flops_executed_policy: float
    flops_executed_reward: float
    reward_calls: int
    tree: SearchTree | None = None  # only if asked for, and only from methods that record one


class Method(Protocol):
    """A search method: ``settings`` is its section of the config, ``budgets`` integers of the meaning the registry states.

    Returns one result per budget and prompt, budgets in the order given, prompts in order within each.
    """

    def __call__(
        self,
        models: SearchModels,
        prompts: Sequence[SearchPrompt],
        settings: BaseModel,
        budgets: Sequence[int],
        *,
        key: RandomKey,
        max_new_tokens: int,
        record_tree: bool = False,
    ) -> list[SearchResult]:
        """Search a block of prompts."""
