"""Stage sources: conversations and attack prompts, from the sandbox world or from the hub."""

from __future__ import annotations

from typing import Any

from saffron import records
from saffron.config import Config
from saffron.layout import Layout


def build(config: Config, layout: Layout) -> None:
    """Write ``data/<config>/sources``: conversations, every prompt set, in the sandbox the corpus, and ``sources.json``.

    ``sources.json`` has origin, licences, seeds or revisions, row counts, and the sha256 of every table.
    """
    facts = _build(config, layout)
    tables = sorted(layout.sources.rglob("*.parquet"))
    hashes = {table.relative_to(layout.sources).as_posix(): records.sha256(table) for table in tables}
    records.write_json(layout.sources_record, {**facts, "sha256": hashes})


def _build(config: Config, layout: Layout) -> dict[str, Any]:
    if config.sources.origin == "sandbox":
        from saffron.sources import sandbox

        assert config.sources.sandbox is not None  # checked by config.Sources
        return sandbox.build(config.sources.sandbox, layout)
    from saffron.sources import hub

    assert config.sources.hub is not None  # checked by config.Sources
    return hub.build(config.sources.hub, layout)
