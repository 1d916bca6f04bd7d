"""Stage sources: conversations and prompt sets as tables, every row that was read accounted for in ``sources.json``."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from saffron import records
from saffron.config import Conversations, PromptSet, Rows, Sources, Split, as_dict
from saffron.jobs import PromptsJob, SourcesJob, beside
from saffron.layout import Layout
from saffron.sources import files
from saffron.sources.division import Divided, Read, divide
from saffron.sources.reading import Conversation, Dropped, Prompt, Reader, Row, SourceError, readers

log = logging.getLogger(__name__)

SANDBOX_LICENCE = "MIT, with this project; generated text, every item is invented"


@dataclass
class Account:
    """Where the rows of one source went: ``read`` = ``dropped`` + ``left_out`` + what was written."""

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def record(self, written: int) -> dict[str, Any]:
        """As ``sources.json`` keeps it.

        Raises:
            AssertionError: if a row is unaccounted for.
        """
        assert self.read == written + self.dropped.total() + self.left_out.total(), "a row is unaccounted for"
        kinds = {name: dict(sorted(counts.items())) for name, counts in (("dropped", self.dropped), ("left_out", self.left_out))}
        return {"read": self.read, "written": written, **kinds}


def build(job: SourcesJob, layout: Layout) -> None:
    """Write conversations, in the sandbox the corpus, the prompt sets that are parts of either or of a split, and their record.

    ``sources.json`` says of every table where it came from (id, revision, licence, files by sha256), where every row went, and
    has the sha256 of the tables.

    Raises:
        SourceError: if a source cannot be fetched or read, is not the expected one, or too many of its rows cannot be used; names
            key, file, row and remedy.
    """
    section = job.sources
    # All are fetched before any is read: a missing access shows at once, not after the work on another.
    found = {key: files.find(rows, f"sources.{key}") for key, rows in section.all_rows() if rows.reader is not None}
    stage = _Stage(section, found, frozenset(job.attacked))
    tables = {name: stage.prompts(name, prompts) for name, prompts in section.prompts.items()}
    conversations = stage.conversations(section.conversations)
    counts = {}
    if section.sandbox is not None:
        corpus = stage.world["corpus"]
        records.write_table(layout.corpus, corpus, records.CORPUS)
        counts["corpus"] = len(corpus)
    records.write_table(layout.conversations, conversations, records.CONVERSATIONS)
    for name, rows in tables.items():
        records.write_table(layout.prompts(name), rows, records.PROMPTS)
    written = [layout.conversations, *map(layout.prompts, tables), *([layout.corpus] if "corpus" in counts else [])]
    facts: dict[str, Any] = {
        "counts": {"conversations": len(conversations)} | counts | {name: len(rows) for name, rows in tables.items()},
        "origins": {key: _origin(section, rows, key, found) for key, rows in section.all_rows()},
        "rows": stage.accounts,
    }
    if section.sandbox is not None:
        facts["seeds"] = {"world": section.sandbox.world_seed, "benchmark": section.sandbox.benchmark_seed}
    facts["sha256"] = {path.relative_to(layout.sources).as_posix(): records.sha256(path) for path in sorted(written)}
    records.write_json(layout.sources_record, facts)
    records.write_json(beside(layout.sources_record), as_dict(job))


def build_prompts(job: PromptsJob, layout: Layout) -> None:
    """Write one prompt set that has a source of its own, and beside it the same record as of :func:`build`.

    Raises:
        SourceError: as :func:`build`.
    """
    key = f"prompts.{job.name}"
    found = {key: files.find(job.rows, f"sources.{key}")}
    stage = _Stage(None, found, frozenset({job.name} if job.attacked else ()))
    rows = stage.prompts(job.name, job.rows)
    path = layout.prompts(job.name)
    records.write_table(path, rows, records.PROMPTS)
    facts = {
        "counts": {job.name: len(rows)},
        "origins": {key: _identity(None, job.rows, found[key], "prompts")},
        "rows": stage.accounts,
        "sha256": {path.relative_to(layout.sources).as_posix(): records.sha256(path)},
    }
    records.write_json(layout.prompts_record(job.name), facts)
    records.write_json(beside(path), as_dict(job))


def _origin(section: Sources, rows: Rows, key: str, found: dict[str, files.Found]) -> dict[str, Any]:
    """What a card says of a table's source; a part of a split is named with it."""
    if rows.split is None:
        return _identity(section, rows, found.get(key), "preference pairs" if key == "conversations" else "prompts")
    whole = f"splits.{rows.split}"
    return _identity(section, section.splits[rows.split], found[whole], "a split") | {"split": rows.split}


def _identity(section: Sources | None, rows: Rows, found: files.Found | None, what: str) -> dict[str, Any]:
    """What a card says of a source: its name, revision and licence, and the sha256 of every file read."""
    if rows.origin == "sandbox":
        assert section is not None and section.sandbox is not None  # checked by config.Sources
        name = f"{what} of the sandbox world, seed {section.sandbox.world_seed}"
        return {"from": "sandbox", "name": name, "licence": SANDBOX_LICENCE, "licence_id": "mit"}
    assert found is not None  # every source with a reader was found, and so was a split
    name = rows.id or rows.package or str(rows.path)
    identity: dict[str, Any] = {"from": rows.origin, "name": name, "licence": rows.licence or "not stated"}
    identity["licence_id"] = _licence_id(rows.licence)
    if rows.origin == "hub":
        identity["revision"] = found.revision or "local mirror"
    return identity | {"files": {file.name: records.sha256(file.path) for file in found.files}}


def _licence_id(licence: str | None) -> str:
    """The hub's word for a licence: its short name in small letters, ``other`` for one in words, ``unknown`` for none."""
    if licence is None:
        return "unknown"
    return licence.lower() if re.fullmatch(r"[A-Za-z0-9.-]+", licence) else "other"


class _Stage:
    """Everything that is read for one config; what several tables share is read once."""

    def __init__(self, section: Sources | None, found: dict[str, files.Found], attacked: frozenset[str]) -> None:
        self.section, self.found, self.attacked = section, found, attacked
        self.accounts: dict[str, dict[str, Any]] = {}
        self._divided: dict[str, Divided] = {}
        self._world: dict[str, Any] | None = None

    @property
    def world(self) -> dict[str, Any]:
        """The sandbox's conversations, corpus and prompt sets."""
        if self._world is None:
            from saffron.sources import sandbox

            assert self.section is not None and self.section.sandbox is not None  # checked by config.Sources
            self._world = sandbox.build(self.section.sandbox)
        return self._world

    # -------------------------------------------------------------------------------------------------------- prompts
    def prompts(self, name: str, rows: PromptSet) -> list[dict[str, Any]]:
        """Rows of records.PROMPTS."""
        key = f"prompts.{name}"
        part = rows.part or name
        if rows.origin == "sandbox":
            return [{**row, "dataset": name} for row in self.world["prompts"][part]]
        if rows.split is not None:
            prompts = self._split(rows.split).prompts[part]
        else:
            read, account = self._read(key, rows, _as_prompt)
            prompts = [prompt for _, _, prompt in read]
            self.accounts[key] = account.record(len(prompts))
        if not prompts:
            raise SourceError(f"sources.{key}: no prompt is left; see what was dropped above, or correct where and max_rows")
        return [
            {"dataset": name, "prompt_id": number, "prompt": prompt.text, "reference": prompt.reference}
            for number, prompt in enumerate(prompts)
        ]

    # -------------------------------------------------------------------------------------------------- conversations
    def conversations(self, rows: Conversations) -> list[dict[str, Any]]:
        """Rows of records.CONVERSATIONS."""
        if rows.origin == "sandbox":
            return self.world["conversations"]
        if rows.split is not None:
            key, divided = f"splits.{rows.split}", self._split(rows.split)
        else:
            key = "conversations"
            divided = self._divide(key, rows, {})
        table = [
            {
                "source_row": row.source_row,
                "split": split,
                "subset": row.subset,
                "chosen": row.conversation.chosen,
                "rejected": row.conversation.rejected,
            }
            for split, row in divided.conversations
        ]
        lacking = sorted({"train", "test"} - {row["split"] for row in table})
        if lacking:
            raise SourceError(
                f"sources.{key}: no conversation is left for the split {' and '.join(lacking)}; name files train and test, or "
                f"set sources.{key}.test to a share such as 0.05"
            )
        return table

    def _split(self, name: str) -> Divided:
        if name not in self._divided:
            assert self.section is not None  # a split is a part of the sources
            rows = self.section.splits[name]
            self._divided[name] = self._divide(f"splits.{name}", rows, rows.parts)
        return self._divided[name]

    def _divide(self, key: str, rows: Conversations | Split, parts: dict[str, int]) -> Divided:
        read, account = self._read(key, rows, _as_either if parts else _as_conversation)
        dealt = rows.test is not None  # the rule deals the rows of all files anew, so they are numbered together
        usable = [
            Read(file.split, file.subset, index if dealt else number, *pair) for index, (file, number, pair) in enumerate(read)
        ]
        divided = divide(usable, parts, rows.test, rows.seed, f"sources.{key}")
        account.left_out.update(divided.left_out)
        written = len(divided.conversations) + sum(map(len, divided.prompts.values()))
        self.accounts[key] = account.record(written)
        if parts:
            by_split = Counter(split for split, _ in divided.conversations)
            self.accounts[key]["parts"] = {name: len(found) for name, found in divided.prompts.items()} | dict(by_split)
        return divided

    # ----------------------------------------------------------------------------------------------------------- rows
    def _read(
        self, key: str, rows: Rows, make: Callable[[Reader, Row, Any], Any]
    ) -> tuple[list[tuple[files.File, int, Any]], Account]:
        """What the rows of a source make, each with its file and its number within the split."""
        where, reader, settings = f"sources.{key}", readers()[str(rows.reader)], rows.reader_settings()
        account, counts, numbers = Account(), Counter[str](), Counter[str]()
        made: list[tuple[files.File, int, Any]] = []
        needed = key.removeprefix("prompts.") in self.attacked if key.startswith("prompts.") else False
        for file in self.found[key].files:
            for row in files.read(file, where):
                account.read += 1
                if not files.selected(row, rows.where):
                    account.left_out["other values than where asks for"] += 1
                    continue
                number = numbers[file.split]
                numbers[file.split] += 1
                counts[file.split if rows.count_by is None else str(row.column(rows.count_by))] += 1
                if rows.max_rows is not None and number >= rows.max_rows:
                    account.left_out["after max_rows"] += 1
                    continue
                try:
                    item = make(reader, row, settings)
                except Dropped as dropped:
                    account.dropped[dropped.kind] += 1
                    continue
                if needed and item.reference is None:
                    raise SourceError(
                        f"{row.where}: no answer to prefill, so an attack on it would not be one; give it a reference, remove "
                        "the row, or set attack: false for the runs on this prompt set"
                    )
                made.append((file, number, item))
        _check_counts(counts, rows, where)
        _check_dropped(account, len(made), rows, where)
        return made, account


def _as_prompt(reader: Reader, row: Row, settings: Any) -> Prompt:
    assert reader.prompt is not None  # checked by config.PromptSet
    return reader.prompt(row, settings)


def _as_conversation(reader: Reader, row: Row, settings: Any) -> tuple[Conversation, None]:
    assert reader.conversation is not None  # checked by config.Conversations
    return reader.conversation(row, settings), None


def _as_either(reader: Reader, row: Row, settings: Any) -> tuple[Conversation, Prompt | None]:
    conversation, _ = _as_conversation(reader, row, settings)
    try:
        return conversation, _as_prompt(reader, row, settings)
    except Dropped:
        return conversation, None


def _check_counts(found: Counter[str], rows: Rows, where: str) -> None:
    expected = rows.rows
    if expected is None or (found.total() == expected if isinstance(expected, int) else dict(found) == expected):
        return
    shown = str(found.total()) if isinstance(expected, int) else _listed(found)
    wanted = str(expected) if isinstance(expected, int) else _listed(expected)
    by = rows.count_by or "split"
    raise SourceError(
        f"{where}: rows {'are' if isinstance(expected, int) else f'by {by} are'} {shown}, but {where}.rows says {wanted}; check "
        "the pinned revision, or correct the expectation"
    )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))


def _check_dropped(account: Account, made: int, rows: Rows, where: str) -> None:
    dropped = account.dropped.total()
    if not dropped:
        return
    kinds = "; ".join(f"{count} × {kind}" for kind, count in account.dropped.most_common())
    total = dropped + made
    log.warning("%s: %d of %d rows dropped: %s", where, dropped, total, kinds)
    if dropped > rows.allow_dropped * total:
        raise SourceError(
            f"{where}: {dropped} of {total} rows cannot be used ({kinds}), more than {where}.allow_dropped "
            f"{rows.allow_dropped:g}; mend the rows or the settings, or raise that share"
        )
