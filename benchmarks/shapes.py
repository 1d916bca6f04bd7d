"""Random models of stated size. Speed does not depend on what the weights say, except through how flat the policy is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 8192
EOS = 2


@dataclass(frozen=True)
class Pair:
    """A policy and an MRM over one vocabulary."""

    policy: Any
    mrm: Any


def llama(
    hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int, seed: int, vocabulary: int = VOCABULARY
) -> LlamaForCausalLM:
    """A Llama with random weights, float32, in eval mode."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=hidden // heads,
        max_position_embeddings=1024,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def parameters(model: Any) -> int:
    """How many weights a model has."""
    return sum(parameter.numel() for parameter in model.parameters())


def pair(sharpness: float = 1.0) -> Pair:
    """The policy of 40 M and the MRM of 10 M parameters that the targets are stated for.

    Args:
        sharpness: factor on the policy's unembedding. 1 leaves it nearly flat, so that nuclei hold most of the vocabulary
            (the most work for selection); 12 gives nuclei of the size a trained model has.
    """
    policy = llama(hidden=512, layers=10, heads=8, kv_heads=4, intermediate=1536, seed=0)
    policy.lm_head.weight.mul_(sharpness)
    return Pair(policy, llama(hidden=256, layers=7, heads=4, kv_heads=2, intermediate=768, seed=1))


def prompts(count: int, length: int) -> list[list[int]]:
    """Random prompts of equal length."""
    generator = torch.Generator().manual_seed(2)
    return torch.randint(3, VOCABULARY, (count, length), generator=generator).tolist()
