"""Where conversations and prompt sets come from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from saffron.config.base import remedy
from saffron.section import HubFile, Section
from saffron.sources.reading import readers


class SandboxSources(Section):
    """The sandbox world: grammar, corpora, preference pairs and prompts, all deterministic from seeds."""

    world_seed: int = Field(0, description="seed of the world: items, roles, purposes, dispositions and all corpora")
    benchmark_seed: int = Field(
        ..., description="seed of the guild_a and guild_b prompts; every one ever used is listed in the README"
    )
    pretraining_dialogues: int = Field(36_000, ge=8, description="dialogues for the policy's pre-training")
    safety_dialogues: int = Field(
        3_000, ge=8, description="refusals, and as many replayed dialogues, for the policy's safety tuning"
    )
    helpful_tuning: float = Field(
        1.0,
        ge=0,
        le=1,
        description="answers to harmless requests per refusal in the safety tuning, as real tuning mixes in helpful data (0: the "
        "policy refuses nearly everything)",
    )
    verdict_dialogues: int = Field(16_000, ge=8, description="dialogues with known truth for the guard's training")
    preference_pairs: int = Field(8_000, ge=8, description="chosen/rejected pairs in the shape of HH-RLHF")
    test_fraction: float = Field(0.05, gt=0, lt=0.5, description="share of the preference pairs in the test split")
    guild_a: int = Field(330, ge=1, description="prompts in benchmark guild_a (the role of Harmful HEx-PHI)")
    guild_b: int = Field(200, ge=1, description="prompts in benchmark guild_b (the role of Ai2 Refusals)")
    development: int = Field(200, ge=1, description="prompts in the development split, on which every knob is fixed")
    benign: int = Field(100, ge=1, description="harmless prompts")
    phrasings: int = Field(
        124, ge=1, le=124, description="phrasings of the corpora's requests; real data hold far more of them than any attack"
    )
    training_families: int = Field(
        6, ge=1, le=6, description="families of forbidden items in preference pairs, none of them a prompt set's"
    )
    allowed_verdicts: float = Field(
        0.4,
        ge=0,
        lt=1,
        description="share of the guard's dialogues about allowed items; most of what a real guard reads is harmless, and one "
        "that met little of it takes harmless requests in new words for forbidden ones",
    )
    garbled_share: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="share of the guard's dialogues about forbidden items whose answer is not well formed; a guard that reads "
        "only authors' text takes the words of a refusal, in any order, for one",
    )
    resistance: tuple[float, float] = Field(
        (0.0, 12.0),
        description="range of z over forbidden prompts; a speaker turns back with probability about exp(-z) per sentence",
    )
    tone_factor: float = Field(
        3.0, ge=1, description="how much likelier a wary speaker turns back than a plain one, a plain one than a bold one"
    )
    doubt_factor: float = Field(
        4.0, gt=0, description="each doubt voiced multiplies later chances of turning back (a delayed pay-off)"
    )
    care_factor: float = Field(
        0.5, gt=0, description="each precaution voiced multiplies later chances of turning back (sounds safe, leads away)"
    )
    dialect_share: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="share of slots filled with dialect words, which the preference pairs never use (unseen tokens)",
    )
    helpful_share: float = Field(
        0.58,
        ge=0,
        lt=1,
        description="share of preference pairs about allowed items; HH-RLHF's helpful subsets are the larger part too",
    )
    cut_share: float = Field(
        0.25,
        ge=0,
        lt=1,
        description="share of preference pairs about forbidden items whose answers lack their first words, as much text a "
        "pretrained model has read; a judged answer always does, since the prefill is left out of it",
    )
    multi_turn_share: float = Field(0.2, ge=0, le=1, description="share of conversations with an exchange before the last one")

    @model_validator(mode="before")
    @classmethod
    def _yaml_has_no_tuples(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("resistance"), list):
            return {**values, "resistance": tuple(values["resistance"])}
        return values

    @model_validator(mode="after")
    def _resistance_is_a_range(self) -> SandboxSources:
        if not 0 <= self.resistance[0] < self.resistance[1]:
            raise ValueError("resistance must be two numbers, the lower first, none negative")
        return self


class HubDataset(HubFile):
    """A dataset on the hub, pinned by a commit or by what its files hold."""

    sha256: dict[str, str] = Field(
        default_factory=dict,
        description="expected digests by file, as in the hub's layout; where all files read are named, they pin a dataset "
        "without a revision",
    )


Origin = Literal["hub", "path", "package", "split", "sandbox"]

#: Keys that say where rows come from, by origin: those it needs, and those it may have.
ORIGIN_KEYS: dict[Origin, tuple[frozenset[str], frozenset[str]]] = {
    "hub": (frozenset({"id", "files", "reader"}), frozenset({"revision", "path", "sha256"})),
    "path": (frozenset({"path", "reader"}), frozenset({"files", "sha256"})),
    "package": (frozenset({"package", "files", "reader"}), frozenset({"sha256"})),
    "split": (frozenset({"split"}), frozenset({"part"})),
    "sandbox": (frozenset(), frozenset({"part"})),
}
_PLACES = frozenset({"id", "revision", "path", "package", "files", "sha256", "reader", "split", "part"})
#: How rows that are read are treated; rows of the sandbox and of a split are read already.
_READING = frozenset({"settings", "where", "rows", "count_by", "max_rows", "allow_dropped", "licence", "test"})

#: Prompt sets of the sandbox's world.
SANDBOX_SETS = ("guild_a", "guild_b", "development", "benign")
#: The one of them whose prompts are harmless and have no answer to prefill.
SANDBOX_BENIGN = "benign"

#: A name that is a file's name, a column's value and part of a command, anywhere.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

#: Share of rows that may be dropped without a word in the config.
ALLOW_DROPPED = 0.05


class Rows(Section):
    """Where rows come from and which reader turns them into records."""

    origin: Origin = Field(
        ...,
        alias="from",
        description="hub: a pinned dataset; path: a local file or folder; package: an installed Python package; split: a part of "
        "sources.splits; sandbox: the world of sources.sandbox",
    )
    id: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$", description="hub id, owner/name")
    revision: str | None = Field(
        None, description="commit the hub id is pinned to, 40 hex digits (null: path or sha256 needed instead)"
    )
    path: str | None = Field(
        None,
        description="local file or folder, for a hub id an offline mirror; ${NAME} stands for the environment variable NAME",
    )
    package: str | None = Field(None, description="installed Python package whose folder holds the files")
    files: list[str] = Field(
        default_factory=list,
        description="files to read, as glob patterns below repository, folder or package: jsonl, jsonl.gz, json, parquet or csv "
        "(none, in a folder: all of these but json)",
    )
    sha256: dict[str, str] = Field(
        default_factory=dict,
        description="expected digests by file, as in the hub's layout; where all files read are named, they pin a dataset "
        "without a revision",
    )
    reader: str | None = Field(
        None, description="what turns a row into a record: preference_pairs, messages, columns or your own"
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="of the reader (docs/bring-your-own.md)")
    where: dict[str, str] = Field(
        default_factory=dict, description="read only rows whose columns have these values; * stands for any text"
    )
    rows: int | dict[str, int] | None = Field(
        None, description="expected number of rows: of all, or by split (by the values of count_by); null: anything"
    )
    count_by: str | None = Field(None, description="column by whose values rows are counted (null: the split)")
    max_rows: int | None = Field(None, ge=1, description="read only the first rows of each split (null: all)")
    allow_dropped: float = Field(
        ALLOW_DROPPED, ge=0, le=1, description="largest share of rows that may be dropped because they cannot be used"
    )
    licence: str | None = Field(None, description="licence of the data, for cards (null: not stated)")
    split: str | None = Field(None, description="the entry of sources.splits, for from: split")

    @field_validator("files")
    @classmethod
    def _lie_below(cls, files: list[str]) -> list[str]:
        for pattern in files:
            if not pattern or pattern.startswith("/") or ".." in pattern.split("/"):
                raise ValueError(f"{pattern!r} must be a path below the folder; write no leading / and no ..")
        return files

    @field_validator("revision")
    @classmethod
    def _is_a_commit(cls, revision: str | None) -> str | None:
        return HubFile._is_a_commit(revision)

    @model_validator(mode="after")
    def _keys_of_origin(self) -> Rows:
        needed, allowed = ORIGIN_KEYS[self.origin]
        read = "reader" in needed
        given = {
            name
            for name, field in type(self).model_fields.items()
            if getattr(self, name) != field.get_default(call_default_factory=True)
        }
        missing = sorted(name for name in needed if not getattr(self, name))
        if missing:
            raise ValueError(f"from is {self.origin}: add {', '.join(missing)}")
        strange = sorted(given & (_PLACES - needed - allowed | (frozenset() if read else _READING)))
        if strange:
            raise ValueError(f"from is {self.origin}, which has no {', '.join(strange)}: remove that")
        if read:
            self.reader_settings()
        return self

    def reader_settings(self) -> Section:
        """The reader's settings.

        Raises:
            ValueError: if there is no such reader, or a setting is not one of its.
        """
        known = readers()
        if self.reader is None or self.reader not in known:
            raise ValueError(f"reader: no reader {self.reader!r}; there are {', '.join(known)}")
        try:
            return known[self.reader].settings.model_validate(self.settings)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"settings.{'.'.join(map(str, first['loc']))}: {remedy(first)}") from None

    @property
    def hub_file(self) -> HubDataset:
        """The dataset on the hub, for ``from: hub``."""
        assert self.id is not None  # checked above
        return HubDataset(id=self.id, revision=self.revision, path=self.path, sha256=self.sha256)


class Conversations(Rows):
    """The conversations whose responses Safety4M labels and the MRM learns from."""

    test: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the questions held out as the test split, by the rule of sources.splits (null: files named train "
        "and test say which rows are which)",
    )
    seed: int = Field(0, description="seed of that rule")

    @model_validator(mode="after")
    def _makes_conversations(self) -> Conversations:
        if self.reader is not None and readers()[self.reader].conversation is None:
            raise ValueError(f"reader {self.reader} makes no conversations; take another one")
        return self


class PromptSet(Rows):
    """Prompts, with the answers that an attack prefills."""

    part: str | None = Field(
        None, description="which part of the split, or which prompt set of the sandbox's world (null: that of the same name)"
    )

    @model_validator(mode="after")
    def _makes_prompts(self) -> PromptSet:
        if self.reader is not None and readers()[self.reader].prompt is None:
            raise ValueError(f"reader {self.reader} makes no prompts; take another one")
        return self


class Split(Conversations):
    """One source of conversations divided by question: prompt sets, and conversations in which none of their prompts stands.

    Different questions are put in the order of sha256(seed, question). The parts take the first ones in the order in which they
    are written, of rows with one question and an answer. Of the other questions, the last share `test` are the test split.
    """

    parts: Annotated[dict[str, int], Field(min_length=1)] = Field(..., description="number of prompts of each part, by name")

    @model_validator(mode="after")
    def _makes_both(self) -> Split:
        if self.origin in ("split", "sandbox"):
            raise ValueError("from: a split reads hub, path or package")
        if readers()[str(self.reader)].prompt is None:
            raise ValueError(f"reader {self.reader} makes no prompts; take another one")
        if min(self.parts.values()) < 1:
            raise ValueError("parts: every part needs 1 prompt or more")
        _require_names("parts", self.parts)
        return self


def _require_names(key: str, names: Iterable[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{key}: {name!r} is no name of a file; take letters, digits, _ and - alone")


class Sources(Section):
    """Conversations and prompt sets."""

    sandbox: SandboxSources | None = Field(None, description="settings of the sandbox's world")
    splits: dict[str, Split] = Field(default_factory=dict, description="sources that are divided by question, by name")
    conversations: Conversations = Field(..., description="what Safety4M labels and the MRM learns from")
    prompts: Annotated[dict[str, PromptSet], Field(min_length=1)] = Field(
        ..., description="prompt sets by name, which experiments call by it"
    )

    @model_validator(mode="after")
    def _origins_exist(self) -> Sources:
        _require_names("prompts", self.prompts)
        _require_names("splits", self.splits)
        for key, rows in self.all_rows():
            if rows.origin == "sandbox" and self.sandbox is None:
                raise ValueError(f"{key}.from is sandbox: add the section sources.sandbox")
            if rows.split is not None and rows.split not in self.splits:
                raise ValueError(f"{key}.split: no entry {rows.split} of sources.splits")
        for name, prompts in self.prompts.items():
            part = prompts.part or name
            known: Iterable[str] = SANDBOX_SETS if prompts.origin == "sandbox" else ()
            known = self.splits[prompts.split].parts if prompts.split is not None else known
            if prompts.origin in ("sandbox", "split") and part not in known:
                raise ValueError(f"prompts.{name}: no prompt set {part} there; set part to one of {', '.join(known)}")
        return self

    def all_rows(self) -> list[tuple[str, Rows]]:
        """Every place that rows come from, with its key below sources: conversations, prompt sets, then splits."""
        found: list[tuple[str, Rows]] = [("conversations", self.conversations)]
        found += [(f"prompts.{name}", rows) for name, rows in self.prompts.items()]
        return found + [(f"splits.{name}", rows) for name, rows in self.splits.items()]

    def is_benign(self, name: str) -> bool:
        """Whether a prompt set is the sandbox's harmless one."""
        return self.prompts[name].origin == "sandbox" and (self.prompts[name].part or name) == SANDBOX_BENIGN
