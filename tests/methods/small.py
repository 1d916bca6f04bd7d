"""Small random models in float64, and prompts for them: what methods are compared with their references on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import placed
import torch
from methods import reference
from methods.reference_baselines import Reference
from transformers import LlamaConfig, LlamaForCausalLM

from saffron.chat import ChatFormat, ChatFormats
from saffron.methods.base import Block, SearchModels, SearchPrompt
from saffron.methods.random import RandomKey

VOCABULARY = 13
SUFFIX = (3, 1, 4, 1)


@lru_cache(maxsize=64)
def model(seed: int, scale: float = 1.0) -> Any:
    """A random Llama whose logits have about the spread ``scale``, with a bias of its lm_head."""
    torch.manual_seed(seed)
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.4,
    )
    llama = LlamaForCausalLM(shape)
    llama.lm_head = torch.nn.Linear(16, VOCABULARY)
    torch.nn.init.normal_(llama.lm_head.weight, std=scale / 4)
    return llama.to(placed.DEVICE, torch.float64).eval().requires_grad_(False)


def models_of(seed: int, eos: int, **changes: Any) -> SearchModels:
    """Policy, guard and MRM."""
    formats = ChatFormats(
        policy=ChatFormat((1,), (2,), ()),
        guard=ChatFormat((5, 6), (7,), SUFFIX),
        mrm=ChatFormat((5,), (7,), ()),
        safe_id=8,
        unsafe_id=9,
        eos_id=eos,
    )
    given = {"policy": model(seed, 2.0), "guard": model(seed + 1000), "formats": formats, "mrm": model(seed + 2000)}
    return SearchModels(**given | changes)


def prompts_of(seed: int, count: int) -> list[SearchPrompt]:
    generator = np.random.default_rng(seed)
    prompts = []
    for i in range(count):
        ids, prefill = (generator.integers(0, VOCABULARY, int(generator.integers(1, 7))).tolist() for _ in range(2))
        prompts.append(SearchPrompt(10 * seed + i, [1, *ids, 2, *prefill], [5, 6, *ids, 7], [5, *ids, 7]))
    return prompts


def block_of(models: SearchModels, prompts: list[SearchPrompt], seed: int, limit: int) -> Block:
    return Block(models, prompts, RandomKey("guild_a", seed), limit)


#: What each pair of models said, by policy: a full forward of the same ids need not be repeated.
FORWARDS: dict[torch.nn.Module, dict[tuple[bool, tuple[int, ...]], torch.Tensor]] = defaultdict(dict)


def plain_of(models: SearchModels, seed: int, limit: int) -> Reference:
    """The reference for draws and verdicts."""
    key = RandomKey("guild_a", seed)
    return Reference(models.policy, models.guard, models.formats, key, limit, logits_of=FORWARDS[models.policy])


def process_rewards(guard: Any, prompt: SearchPrompt) -> Callable[[list[int]], list[float]]:
    """The guard reads every child with the suffix, all children of a sequence as one batch."""

    def rewards_of(tokens: list[int]) -> list[float]:
        rows = [[*prompt.guard_ids, *tokens, child, *SUFFIX] for child in range(VOCABULARY)]
        logits = guard(placed.tensor(rows), use_cache=False).logits[:, -1]
        return (logits[:, 8] - logits[:, 9]).tolist()

    return rewards_of


def predicted(mrm: Any, prompt: SearchPrompt, tokens: list[int]) -> float:
    """M(s)[a] of the last token of ``tokens`` by one full forward."""
    return float(reference.last_logits(mrm, [*prompt.mrm_ids, *tokens[:-1]])[tokens[-1]])
