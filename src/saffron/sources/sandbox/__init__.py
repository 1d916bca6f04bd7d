"""The sandbox world: a benign crafters' guild that behaves like the real data (README.md beside this file)."""

from __future__ import annotations

from typing import Any

from saffron.config import ConfigError, SandboxSources
from saffron.sources.sandbox import corpora
from saffron.sources.sandbox.world import World


def build(settings: SandboxSources) -> dict[str, Any]:
    """Conversations, corpus and prompt sets of a world.

    Returns:
        ``corpus`` and ``conversations``, rows of records.CORPUS and records.CONVERSATIONS, and ``prompts``, rows of
        records.PROMPTS by set.

    Raises:
        ConfigError: if a prompt set asks for more prompts than its family has.
    """
    for name in corpora.ATTACK_SETS:
        if getattr(settings, name) > (most := corpora.most_prompts(name)):
            raise ConfigError(f"sources.sandbox.{name}: there are only {most} different prompts for its items; ask for fewer")
    world = World(settings)
    return {
        "corpus": corpora.corpus(world),
        "conversations": corpora.conversations(world),
        "prompts": corpora.prompt_sets(world),
    }
