"""Random models of stated size. Speed does not depend on what the weights say, except through how flat the policy is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from saffron.engine.compute import ModelShape
from saffron.models.shapes import SHAPES as KNOWN

EOS = 2


@dataclass(frozen=True)
class Workload:
    """A guard, and the lengths of its chat format.

    Attributes:
        name: what the table calls it.
        shape: of the guard.
        prefix: tokens before the conversation.
        suffix: tokens that ask for the verdict.
        conversations: labelled in one batch.
    """

    name: str
    shape: ModelShape
    prefix: int
    suffix: int
    conversations: int


@dataclass(frozen=True)
class Shapes:
    """The models that a run of the benchmark measures.

    Attributes:
        policy: sizes of the policy.
        guard: sizes of the guard and of the MRM, which is one with an adapter.
        dtype: of all weights and caches.
        tied: whether the guard's unembedding is its embedding.
        labelling: guards that label, the first of which is the one that the MRM is trained from.
        sharpness: factor on the policy's unembedding that gives nuclei of about the size a trained model has.
        widths: N, unless asked for others.
        batches: prompts per batch, unless asked for others.
    """

    policy: ModelShape
    guard: ModelShape
    dtype: torch.dtype
    tied: bool
    labelling: tuple[Workload, ...]
    sharpness: float = 12.0
    widths: tuple[int, ...] = (1, 4, 16, 32, 64)
    batches: tuple[int, ...] = (1, 16)


def _small(hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int, vocabulary: int) -> ModelShape:
    return ModelShape(hidden, intermediate, layers, heads, kv_heads, hidden // heads, vocabulary)


_TEN_MILLION, _SANDBOX = _small(256, 7, 4, 2, 768, 8192), _small(64, 2, 4, 2, 192, 1280)
_TINY, _LLAMA_GUARD = _small(32, 2, 4, 2, 48, 256), KNOWN["meta-llama/Llama-Guard-3-1B"]
#: By the name that ``--shapes`` takes; the released guard's format has 138 tokens before a conversation and 56 after it.
SHAPES = {
    "40m-10m": Shapes(
        policy=_small(512, 10, 8, 4, 1536, 8192),
        guard=_TEN_MILLION,
        dtype=torch.float32,
        tied=False,
        labelling=(Workload("10 M parameters", _TEN_MILLION, 138, 56, 4), Workload("the sandbox's guard", _SANDBOX, 16, 28, 16)),
    ),
    "llama3-8b": Shapes(
        policy=KNOWN["meta-llama/Meta-Llama-3-8B-Instruct"],
        guard=_LLAMA_GUARD,
        dtype=torch.bfloat16,
        tied=True,
        labelling=(Workload("Llama-Guard-3-1B", _LLAMA_GUARD, 138, 56, 16),),
    ),
    "tiny": Shapes(
        policy=_small(48, 2, 4, 2, 64, 256),
        guard=_TINY,
        dtype=torch.bfloat16,
        tied=True,
        labelling=(Workload("tiny", _TINY, 16, 28, 4),),
        sharpness=60.0,
        widths=(1, 4),
        batches=(1, 2),
    ),
}
TARGETS = "40m-10m"  # the shapes that the targets of speed are stated for, on a CPU


@dataclass(frozen=True)
class Pair:
    """A policy and an MRM over one vocabulary; where a method asks for a guard, the MRM stands in for it."""

    policy: Any
    mrm: Any

    @property
    def device(self) -> torch.device:
        return self.policy.device


def llama(
    shape: ModelShape, seed: int, *, dtype: torch.dtype = torch.float32, device: str = "cpu", tied: bool = False
) -> LlamaForCausalLM:
    """A Llama with random weights, made on the device, in eval mode."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=1024,
        tie_word_embeddings=tied,
    )
    with torch.device(device), _default(dtype):
        return LlamaForCausalLM(config).eval().requires_grad_(False)


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    """New floating-point tensors are of this dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def parameters(model: Any) -> int:
    """How many weights a model has."""
    return sum(parameter.numel() for parameter in model.parameters())


def pair(shapes: Shapes = SHAPES[TARGETS], device: str = "cpu") -> Pair:
    """Policy and MRM. The policy is nearly flat, so that nuclei hold most of the vocabulary: the most work for selection."""
    policy = llama(shapes.policy, 0, dtype=shapes.dtype, device=device)
    return Pair(policy, llama(shapes.guard, 1, dtype=shapes.dtype, device=device, tied=shapes.tied))


def peaked(models: Pair, sharpness: float) -> Pair:
    """The same with a policy of small nuclei; only its unembedding is another."""
    policy = copy.deepcopy(models.policy, {id(models.policy.model): models.policy.model})
    policy.lm_head.weight.mul_(sharpness)
    return Pair(policy, models.mrm)


def prompts(count: int, length: int, vocabulary: int) -> list[list[int]]:
    """Random prompts of equal length."""
    generator = torch.Generator().manual_seed(2)
    return torch.randint(3, vocabulary, (count, length), generator=generator).tolist()
