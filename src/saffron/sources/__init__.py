"""Stage sources: conversations and attack prompts, from the sandbox world or from the hub."""

from __future__ import annotations

from typing import Any

from saffron import records
from saffron.config import Sources, as_dict
from saffron.jobs import SourcesJob, beside
from saffron.layout import Layout


def build(job: SourcesJob, layout: Layout) -> None:
    """Write ``data/<config>/sources``: conversations, every prompt set, in the sandbox the corpus, and ``sources.json``.

    ``sources.json`` has origin, licences, seeds or revisions, row counts, and the sha256 of every table.
    """
    facts = _build(job.sources, layout)
    tables = sorted(layout.sources.rglob("*.parquet"))
    hashes = {table.relative_to(layout.sources).as_posix(): records.sha256(table) for table in tables}
    records.write_json(layout.sources_record, {**facts, "sha256": hashes})
    records.write_json(beside(layout.sources_record), as_dict(job))


def _build(section: Sources, layout: Layout) -> dict[str, Any]:
    if section.origin == "sandbox":
        from saffron.sources import sandbox

        assert section.sandbox is not None  # checked by config.Sources
        return sandbox.build(section.sandbox, layout)
    from saffron.sources import hub

    assert section.hub is not None  # checked by config.Sources
    return hub.build(section.hub, layout)
