"""A tiny guard, labels and config that the tests of this stage share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from saffron import config as configuration
from saffron.chat import ChatFormat, ChatFormats
from saffron.config import Config

VOCABULARY = 48
EOS = 0
FORMATS = ChatFormats(
    policy=ChatFormat((1,), (2,), ()),
    guard=ChatFormat((3, 4, 5), (6,), (7, 8)),
    mrm=ChatFormat((1, 3), (6,), ()),
    safe_id=9,
    unsafe_id=10,
    eos_id=EOS,
)
#: Targets are drawn from these, so that all other tokens are unseen.
SEEN = range(12, 40)


def tiny_guard(dtype: torch.dtype = torch.float32, *, tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False)


def labels(rows: int = 24, seed: int = 0) -> pd.DataFrame:
    """Labels whose reward follows the last token, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    table = []
    for row in range(rows):
        prompt, response = rng.choice(SEEN, rng.integers(1, 6)), rng.choice(SEEN, rng.integers(1, 10))
        table.append(
            {
                "conversation_id": f"x-{row}",
                "split": "test" if row % 4 == 0 else "train",
                "source_row": row,
                "side": "chosen",
                "turn": 0,
                "input_ids": np.concatenate([prompt, response]).astype(np.int32),
                "response_start": len(prompt),
                "rewards": (np.sin(response) * 4).astype(np.float32),
            }
        )
    return pd.DataFrame(table)


def config_with(**mrm: object) -> Config:
    values = yaml.safe_load((Path(__file__).parents[2] / "config" / "sandbox.yaml").read_text())
    small = {"learning_rate": 0.01, "batch_size": 4, "checkpoint_every": 3, "evaluation_prefixes": 20}
    values["mrm"] = {"from": "train"} | small | mrm
    del values["analysis"], values["judges"]
    run = {"method": "no_defense", "budgets": [0]}
    values["search"] = {"experiments": {"development": {"dataset": "development", "runs": [run]}}}
    return configuration.parse(values, "test")
