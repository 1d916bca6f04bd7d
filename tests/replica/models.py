"""Llama-3-shaped random models over the 128,256-token vocabulary, as folders in the hub's layout."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from replica import tokenizer
from saffron.chat import ChatFormats

CHAT_FORMATS = Path(__file__).parents[2] / "data/reference/paper/chat_formats.json"


def format_ids() -> frozenset[int]:
    """Every id that one of the paper's chat formats uses."""
    return frozenset().union(*(ChatFormats.load(CHAT_FORMATS, policy=name).ids for name in ("llama3_policy", "llama32_policy")))


def random_model(seed: int, *, tied: bool, layers: int = 2, vocabulary: int = tokenizer.VOCABULARY) -> LlamaForCausalLM:
    """A random Llama whose next-token distributions are peaked, as a trained model's are, so that a nucleus is small."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        rope_theta=500_000.0,
        bos_token_id=128_000 if vocabulary > 128_000 else 0,
        eos_token_id=128_009 if vocabulary > 128_000 else 1,
        initializer_range=1.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def write(folder: Path, *, layers: int = 2) -> None:
    """Write ``policy/`` (untied, as Llama 3 8B) and ``guard/`` (tied, as Llama Guard 3 1B), each with its tokenizer."""
    for seed, (role, tied, named) in enumerate([("policy", False, tokenizer.NAMED), ("guard", True, tokenizer.NAMED_SINCE_3_1)]):
        random_model(seed, tied=tied, layers=layers).save_pretrained(folder / role)
        tokenizer.build(named, format_ids()).save_pretrained(folder / role)
