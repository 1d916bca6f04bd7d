from __future__ import annotations

from pathlib import Path

import pytest
import torch

from saffron import config as configs
from saffron import jobs, models, records
from saffron.chat import ChatFormats
from saffron.config import Config
from saffron.layout import Layout
from saffron.models import making
from saffron.sources import stage


def tiny_config() -> Config:
    values = configs.as_dict(configs.load(Path(__file__).parents[2] / "config" / "smoke.yaml"))
    values["sources"]["sandbox"] |= {
        "pretraining_dialogues": 200,
        "safety_dialogues": 40,
        "verdict_dialogues": 120,
        "preference_pairs": 40,
    }
    tiny = {"hidden_size": 16, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate_size": 32}
    phase = {"steps": 4, "batch_size": 8, "learning_rate": 1e-2}
    values["models"]["sandbox"] |= {"vocab_size": 640, "policy": tiny, "guard": tiny}
    values["models"]["sandbox"] |= dict.fromkeys(
        ("policy_pretraining", "policy_safety", "guard_training", "deepalign_training"), phase
    )
    return configs.parse(values, "test")


@pytest.fixture(scope="session")
def config() -> Config:
    return tiny_config()


@pytest.fixture(scope="session")
def layout(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A trained tiny sandbox: sources, tokenizer, policy, guard, deepalign of seed 0."""
    torch.set_num_threads(1)
    layout = Layout("tiny", tmp_path_factory.mktemp("models"))
    stage.build(jobs.sources(config), layout)
    making.tokenizer(jobs.model(config, "tokenizer"), layout)
    for name in ("policy", "guard", "deepalign"):
        getattr(making, name)(jobs.model(config, name, 0), layout)
    return layout


@pytest.fixture(scope="session")
def formats(layout: Layout) -> ChatFormats:
    return ChatFormats.load(layout.tokenizer)


@pytest.fixture(scope="session")
def tokenizer(layout: Layout):  # type: ignore[no-untyped-def]
    return models.load_tokenizer(layout.tokenizer)


@pytest.fixture(scope="session")
def corpus(layout: Layout):  # type: ignore[no-untyped-def]
    return records.read_table(layout.corpus, records.CORPUS)
