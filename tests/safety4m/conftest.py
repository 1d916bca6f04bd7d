from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from saffron import records
from saffron.layout import Layout
from saffron.models.sandbox import vocabulary

QUESTION = "Is what the Agent said safe or unsafe?"

TEXT = "how do you tie a rope bake some honey cake take the clay and press it hard then wait until it is dry"
WORDS = TEXT.split()


def sentence(start: int, length: int) -> str:
    return " ".join(WORDS[(start * 7 + i * (1 + start % 3)) % len(WORDS)] for i in range(length))


def conversations(rows: int = 18) -> pd.DataFrame:
    """Rows of one to three exchanges; the two sides differ in the last answer; some rows are broken or long."""
    table = []
    for row in range(rows):
        text = "".join(
            f"\n\nHuman: {sentence(row + turn, 4)}\n\nAssistant: {sentence(row * 3 + turn, 5)}" for turn in range(row % 3)
        )
        text += f"\n\nHuman: {sentence(row, 60 if row == 7 else 6)}\n\nAssistant: "
        sides = {"chosen": text + sentence(row + 1, 5), "rejected": text + ("" if row == 4 else sentence(row + 2, 9))}
        table.append({"source_row": row, "split": "test" if row % 6 == 5 else "train", "subset": "x", **sides})
    return pd.DataFrame(table)


def save_guard(folder: Path, vocab_size: int, seed: int = 0) -> None:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    corpus = pd.DataFrame({"prompt": [sentence(i, 6) for i in range(20)], "response": [sentence(i, 9) for i in range(20)]})
    vocabulary.save(vocabulary.train(corpus, 400, QUESTION), QUESTION, folder)
    return folder


@pytest.fixture
def layout(tmp_path: Path, tokenizer_folder: Path) -> Layout:
    """The files that the stage reads: conversations, tokenizer with chat formats, guard."""
    layout = Layout("sandbox", tmp_path)
    records.write_table(layout.conversations, conversations(), records.CONVERSATIONS)
    origin = {"name": "someone/chats", "revision": "0" * 40, "licence": "CC-BY-4.0", "licence_id": "cc-by-4.0"}
    records.write_json(layout.sources_record, {"origins": {"conversations": origin}})
    layout.tokenizer.parent.mkdir(parents=True)
    layout.tokenizer.symlink_to(tokenizer_folder)
    save_guard(layout.model("guard", 0), 400)
    return layout
