"""What was tried to break the project, and what came of it: the table of the record that ``make torture`` writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saffron import records
from saffron.table import Table

#: Part of the project, not of a run.
RECORD = Path(__file__).resolve().parents[3] / "data/reference/robustness.json"

#: What each part does, by its name.
PARTS: Mapping[str, str] = {
    "kills": "`kill -9` at random moments of the smoke run, then resumed: nothing lost, tables of the same bytes",
    "corruption": "a stored file of a finished run cut in half, emptied, one bit turned, or replaced by another",
    "configs": "odd values in every shipped config: one message, or analysed to the end on made-up results",
    "faults": "disk full, memory out, GPU lost in every stage: one message, no half file, made good by the same command",
    "models": "tiny checkpoints of all families and ways to be odd: read as transformers reads them, or refused by name",
    "texts": "fuzzed conversations and prompts through sources, tokenizer, labelling and search",
}


def markdown(_ours: Any = None) -> str:
    """The table of parts, from the record; a part that was never tried says so."""
    found = records.read_json(RECORD) if RECORD.exists() else {}
    return Table(
        ("part", "what is done", "tries", "full", "came of it", "faults"),
        tuple(_row(name, what, found.get(name)) for name, what in PARTS.items()),
    ).markdown_rows()


def _row(name: str, what: str, record: Mapping[str, Any] | None) -> tuple[str, ...]:
    if record is None:
        return f"`{name}`", what, "0", "–", "not tried yet", "–"
    came = ", ".join(f"{count} {outcome}" for outcome, count in record["outcomes"].items())
    return f"`{name}`", what, str(record["tries"]), str(record["full"]), came, str(record["faults"])
