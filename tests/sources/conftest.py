from __future__ import annotations

import pytest

from saffron.config import SandboxSources
from saffron.sources.sandbox.world import World


@pytest.fixture(scope="session")
def settings() -> SandboxSources:
    return SandboxSources(
        benchmark_seed=5,
        pretraining_dialogues=400,
        safety_dialogues=60,
        verdict_dialogues=300,
        preference_pairs=300,
        guild_a=40,
        guild_b=30,
        development=30,
        benign=20,
    )


@pytest.fixture(scope="session")
def world(settings: SandboxSources) -> World:
    return World(settings)
