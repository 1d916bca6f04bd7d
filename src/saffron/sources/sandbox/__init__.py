"""The sandbox world: a benign crafters' guild that behaves like the real data (README.md beside this file)."""

from __future__ import annotations

from saffron import records
from saffron.config import Config, ConfigError
from saffron.layout import Layout
from saffron.sources.sandbox import corpora
from saffron.sources.sandbox.world import World


def build(config: Config, layout: Layout) -> None:
    """Write conversations, corpus, prompt sets and ``sources.json`` (seeds, licence, row counts, sha256 of every table).

    Raises:
        ConfigError: if a prompt set asks for more prompts than its family has.
    """
    settings = config.sources.sandbox
    assert settings is not None  # checked by config.Sources
    for name in corpora.ATTACK_SETS:
        if getattr(settings, name) > (most := corpora.most_prompts(name)):
            raise ConfigError(f"sources.sandbox.{name}: there are only {most} different prompts for its items; ask for fewer")
    world = World(settings)
    tables = {
        layout.corpus: (corpora.corpus(world), records.CORPUS),
        layout.conversations: (corpora.conversations(world), records.CONVERSATIONS),
        **{layout.prompts(name): (rows, records.PROMPTS) for name, rows in corpora.prompt_sets(world).items()},
    }
    for path, (rows, schema) in tables.items():
        records.write_table(path, rows, schema)
    record = {
        "origin": "sandbox",
        "licence": "MIT, as this project; generated text in which every item is invented",
        "seeds": {"world": settings.world_seed, "benchmark": settings.benchmark_seed},
        "tables": {
            path.relative_to(layout.sources).as_posix(): {"rows": len(rows), "sha256": records.sha256(path)}
            for path, (rows, _) in tables.items()
        },
    }
    records.write_json(layout.sources_record, record)
