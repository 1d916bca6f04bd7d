"""Stage sources: conversations and attack prompts, from the sandbox world or from the hub."""

from __future__ import annotations

from saffron.config import Config
from saffron.layout import Layout


def build(config: Config, layout: Layout) -> None:
    """Write ``data/<config>/sources``: conversations, every prompt set, in the sandbox the corpus, and ``sources.json``."""
    if config.sources.origin == "sandbox":
        from saffron.sources import sandbox as origin
    else:
        from saffron.sources import hub as origin
    origin.build(config, layout)
