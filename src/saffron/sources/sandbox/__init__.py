"""The sandbox world: a benign crafters' guild that behaves like the real data (README.md beside this file)."""

from __future__ import annotations

from typing import Any

from saffron import records
from saffron.config import ConfigError, SandboxSources
from saffron.layout import Layout
from saffron.sources.sandbox import corpora
from saffron.sources.sandbox.world import World


def build(settings: SandboxSources, layout: Layout) -> dict[str, Any]:
    """Write conversations, corpus and prompt sets.

    Returns:
        what ``sources.json`` keeps of them: ``origin``, ``licence``, ``seeds``, and ``counts`` by table.

    Raises:
        ConfigError: if a prompt set asks for more prompts than its family has.
    """
    for name in corpora.ATTACK_SETS:
        if getattr(settings, name) > (most := corpora.most_prompts(name)):
            raise ConfigError(f"sources.sandbox.{name}: there are only {most} different prompts for its items; ask for fewer")
    world = World(settings)
    corpus, conversations, prompts = corpora.corpus(world), corpora.conversations(world), corpora.prompt_sets(world)
    records.write_table(layout.corpus, corpus, records.CORPUS)
    records.write_table(layout.conversations, conversations, records.CONVERSATIONS)
    for name, rows in prompts.items():
        records.write_table(layout.prompts(name), rows, records.PROMPTS)
    counts = {"conversations": len(conversations), "corpus": len(corpus)}
    return {
        "origin": "sandbox",
        "licence": "MIT, as this project; generated text in which every item is invented",
        "seeds": {"world": settings.world_seed, "benchmark": settings.benchmark_seed},
        "counts": counts | {name: len(rows) for name, rows in prompts.items()},
    }
