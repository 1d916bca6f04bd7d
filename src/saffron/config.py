"""Typed configuration: WHAT to run.

One YAML file describes a whole replication (``config/<name>.yaml``). It is validated here before anything runs: an
unknown key, a wrong type or an impossible combination ends in one :class:`ConfigError` that names the file, the key and
the remedy. The JSON schema in ``workflow/schemas/`` and the key table in ``config/README.md`` are generated from these
classes, so every field carries a description.

Sections are named after the stages that read them; a stage reads its own section, ``runtime`` and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    field_serializer,
    field_validator,
    model_validator,
)

from saffron import roles
from saffron.judges.base import JudgeError
from saffron.judges.discovery import kind
from saffron.methods.discovery import method, methods
from saffron.roles import Role
from saffron.section import HubFile, Section
from saffron.sources.reading import readers

#: How FLOPs are counted: each once, or once for each loaded model.
Convention = Literal["once", "per_model"]


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the file, the key and the remedy."""


# ------------------------------------------------------------------------------------------------------------ runtime
class Runtime(Section):
    """How numbers are computed. Results are identical for any number of jobs or shards, not across these values."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where models run; auto takes a GPU if there is one")
    dtype: Literal["float64", "float32", "bfloat16", "auto"] = Field(
        "float32",
        description="dtype of weights and KV cache; auto: bfloat16 where the device has the instructions and is measured to be "
        "faster with it, else float32, chosen once per run and stored in data/<name>/dtype.json",
    )
    torch_threads: int = Field(1, ge=1, description="torch threads per process (part of what makes bytes reproducible)")


# ------------------------------------------------------------------------------------------------------------ sources
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
            raise ValueError(f"settings.{'.'.join(map(str, first['loc']))}: {_remedy(first)}") from None

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


# ------------------------------------------------------------------------------------------------------------- models
class Architecture(Section):
    """Size of a sandbox model (Llama architecture)."""

    hidden_size: int = Field(..., ge=8, description="width")
    layers: int = Field(..., ge=1, description="decoder layers")
    heads: int = Field(..., ge=1, description="attention heads")
    kv_heads: int = Field(..., ge=1, description="key/value heads (grouped-query attention)")
    intermediate_size: int = Field(..., ge=8, description="width of the feed-forward layer")

    @model_validator(mode="after")
    def _heads_divide(self) -> Architecture:
        if self.hidden_size % self.heads or self.heads % self.kv_heads:
            raise ValueError("hidden_size must be a multiple of heads, and heads of kv_heads")
        return self


class Optimisation(Section):
    """One training phase."""

    steps: int = Field(..., ge=1, description="optimizer steps")
    batch_size: int = Field(..., ge=1, description="dialogues per step")
    learning_rate: float = Field(..., gt=0, description="peak learning rate, cosine decay")


class SandboxModels(Section):
    """Tokenizer, policy, guard and the DeepAlign policy of the sandbox, trained from scratch."""

    vocab_size: int = Field(1280, ge=300, description="size of the byte-level BPE vocabulary")
    policy: Architecture = Field(..., description="size of the policy")
    policy_pretraining: Optimisation = Field(..., description="language modelling on the world's dialogues")
    policy_safety: Optimisation = Field(..., description="shallow safety tuning")
    guard: Architecture = Field(..., description="size of the guard")
    guard_question: str = Field(
        ...,
        min_length=1,
        description="what the guard is asked after every candidate; its length sets the price of a reward call (tested)",
    )
    guard_training: Optimisation = Field(..., description="language modelling and verdicts at every prefix")
    guard_outcome_share: float = Field(
        ...,
        ge=0,
        le=1,
        description="q: share of prefixes before a turn-back labelled by the final outcome, not by the content so far",
    )
    deepalign_training: Optimisation = Field(..., description="safety-recovery tuning of the DeepAlign policy (section 5.6)")


class ChatText(Section):
    """One model's chat format as text; a control token stands by its name (``<|im_start|>``)."""

    template: bool = Field(
        False,
        description="take what stands around prompt and response from the tokenizer's own chat template (the guard's: around an "
        "exchange, with the header of the answer that follows)",
    )
    prefix: str = Field("", description="text before the prompt, the control token that begins a text included")
    infix: str = Field("", description="text between prompt and response")
    suffix: str = Field("", description="text after the response, up to where the verdict comes; with template: text after it")

    @model_validator(mode="after")
    def _said_once(self) -> ChatText:
        if self.template and (self.prefix or self.infix):
            raise ValueError("template: true says what prefix and infix would; remove one or the other")
        return self


class ChatTexts(Section):
    """The chat formats of policy, guard and MRM as text, and the guard's verdicts."""

    policy: ChatText = Field(..., description="the policy's format")
    guard: ChatText = Field(..., description="the guard's format")
    mrm: ChatText | None = Field(None, description="the MRM's format (null: the guard's without its suffix)")
    safe: str = Field("safe", min_length=1, description='the guard\'s word for a safe answer, one token; it may be " safe"')
    unsafe: str = Field("unsafe", min_length=1, description="the guard's word for an unsafe answer, one token")
    eos: str | None = Field(None, min_length=1, description="token that ends the policy's answer (null: the tokenizer's own)")

    @model_validator(mode="after")
    def _verdict_can_be_asked(self) -> ChatTexts:
        if not (self.guard.template or self.guard.suffix):
            raise ValueError(
                "guard.suffix is empty, but the verdict is read behind it: write the text after which the guard answers, as "
                r'"<|im_end|>\n<|im_start|>assistant\n", or set guard.template: true'
            )
        if self.safe == self.unsafe:
            raise ValueError(f"safe and unsafe are both {self.safe!r}; a verdict needs two words")
        return self


def _texts_or_file(value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
    """A mapping is formats as text, and what is wrong in it is said of its own keys alone."""
    if isinstance(value, dict):
        return ChatTexts.model_validate(value)
    if value is None or isinstance(value, (str, ChatTexts)):
        return inner(value)
    raise ValueError(f"formats are text (policy, guard, mrm, safe, unsafe) or the name of a file of token ids, not {value!r}")


class PackageModel(Section):
    """A model that lies in an installed Python package as one GGUF file."""

    package: str = Field(..., pattern=r"^[\w.-]+$", description="name of the package, which must be installed")
    gguf: str = Field(..., pattern=r"^[\w./-]+\.gguf$", description="the file within it, from the folder of packages on")
    sha256: str = Field(..., pattern=r"^[0-9a-f]{64}$", description="its digest")

    @property
    def id(self) -> str:
        """What cards and records call it."""
        return f"{self.gguf.rpartition('/')[2]} of the package {self.package}"


class PolicySafety(Optimisation):
    """A short refusal tuning of the policy on the train split."""

    freeze: int = Field(0, ge=0, description="first layers that stay as they are, as embeddings and lm_head always do")
    max_tokens: int = Field(128, ge=16, description="prompts and replayed answers are cut to their first tokens")


class TruncatedGuard(Section):
    """A guard made of the policy's first layers, trained to answer a verdict word after any prefix of a response."""

    origin: Literal["truncated"] = Field("truncated", alias="from", description="how it is made")
    of: Literal["policy"] = Field("policy", description="the model whose first layers, final norm and lm_head it takes (untuned)")
    layers: int = Field(..., ge=1, description="how many layers")
    freeze: int = Field(0, ge=0, description="first layers that stay as they are, as embeddings and lm_head always do")
    labels: Literal["refusals", "preference"] = Field(
        "refusals",
        description="what is called safe: an answer that declines in so many words (a guard of refusals, not of harm), or one "
        "that people preferred",
    )
    max_tokens: int = Field(128, ge=16, description="each conversation is cut to its first tokens, as for safety4m")
    training: Optimisation = Field(..., description="responses of the train split, each with verdicts at some of its prefixes")

    @model_validator(mode="after")
    def _something_is_trained(self) -> TruncatedGuard:
        if self.freeze >= self.layers:
            raise ValueError(f"freeze is {self.freeze} of {self.layers} layers: nothing would learn; freeze fewer")
        return self

    @property
    def id(self) -> str:
        """What cards and records call it."""
        return f"the policy's first {self.layers} layers, trained on {self.labels}"


def _by(tags: dict[str, str]) -> Discriminator:
    """Tell classes of one key apart by a key that only one of them has, so that an error speaks of that class alone."""

    def tag(value: Any) -> str:
        given = value.keys() if isinstance(value, dict) else type(value).model_fields if isinstance(value, BaseModel) else ()
        return next((name for key, name in tags.items() if key in given), "(hub)")

    return Discriminator(tag)


#: Tags of those classes; in round brackets, so that no message shows them.
ModelFile = Annotated[Annotated[HubFile, Tag("(hub)")] | Annotated[PackageModel, Tag("(package)")], _by({"package": "(package)"})]
GuardFile = Annotated[
    Annotated[HubFile, Tag("(hub)")] | Annotated[TruncatedGuard, Tag("(truncated)")],
    _by({"from": "(truncated)", "layers": "(truncated)"}),
]


class HubModels(Section):
    """The paper's models, or others in their place."""

    policy: ModelFile = Field(..., description="the policy: from the hub, or from a Python package")
    policy_safety: PolicySafety | None = Field(
        None,
        description="a short refusal tuning of the policy, for one that hardly declines on its own: refusals are learnt, and "
        "rejected answers replayed without their first tokens (null: none)",
    )
    policy_format: str = Field("llama3_policy", description="the policy's entry in chat_formats.json")
    guard: GuardFile = Field(
        ..., description="PRM, judge and the MRM's initialisation: Llama Guard 3 1B, or the policy's own first layers"
    )
    device_map: Literal["auto"] | None = Field(
        None,
        description="auto: accelerate puts weights straight on the GPU (null: by way of host memory); either way a model that "
        "one GPU does not hold is refused",
    )
    other_guard: TruncatedGuard | None = Field(
        None, description="a guard that no search reads, for a judge other_guard without a checkpoint (null: none)"
    )
    chat_formats: Annotated[str | ChatTexts | None, WrapValidator(_texts_or_file)] = Field(
        None, description="chat formats of another model family: as text, or a file of token ids (null: the paper's)"
    )
    control_tokens_in_text: bool = Field(
        False,
        description="true: what reads like a control token (<|eot_id|>) in prompts and answers becomes one, as in the released "
        "code; false: it stays text",
    )


class Models(Section):
    """Policy and guard."""

    origin: Literal["sandbox", "hub"] = Field(..., alias="from", description="sandbox trains tiny models, hub pins the paper's")
    sandbox: SandboxModels | None = Field(None, description="sizes and training of the sandbox models")
    hub: HubModels | None = Field(None, description="ids and revisions of the paper's models")

    @model_validator(mode="after")
    def _section_of_origin(self) -> Models:
        if getattr(self, self.origin) is None:
            raise ValueError(f"models.from is {self.origin}: add the section models.{self.origin}")
        return self

    @property
    def device_map(self) -> Literal["auto"] | None:
        """How weights are placed; sandbox models are too small to matter."""
        return self.hub.device_map if self.hub is not None and self.origin == "hub" else None


# ----------------------------------------------------------------------------------------------------------- safety4m
class Safety4M(Section):
    """Token-level rewards for every response prefix."""

    max_tokens: int = Field(128, ge=2, description="each conversation is cut to its first tokens (paper: 128)")
    turns: Literal["first", "last", "all"] = Field(
        "last", description="which assistant turns are responses (last comes closest to the release's 36 targets per row)"
    )
    end_of_sequence: bool = Field(
        True,
        description="label EOS as the last token of a response that fits (false: EOS is never a target, as in the release)",
    )
    shards: int = Field(1, ge=1, description="independent labelling jobs")
    block_size: int = Field(256, ge=1, description="responses per resumable block")
    batch_size: int = Field(
        16, ge=1, description="responses per forward pass (another size sums in another order: labels differ in their last bits)"
    )


# ---------------------------------------------------------------------------------------------------------------- mrm
#: Linear layers of a decoder layer that LoRA can be put on.
LoraModule = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class MRMVariant(Section):
    """One multifurcation reward model; `default` is the one the paper describes."""

    bias: Literal["trained", "frozen_random", "absent"] = Field("trained", description="the lm_head bias")
    unembedding_scale: float | None = Field(None, gt=0, description="in place of mrm.unembedding_scale (null: the same)")
    centred_verdicts: bool | None = Field(None, description="in place of mrm.centred_verdicts (null: the same)")
    lora_rank: int | None = Field(None, ge=1, description="in place of mrm.lora_rank (null: the same)")
    lora_alpha: float | None = Field(None, gt=0, description="in place of mrm.lora_alpha (null: the same)")
    lora_modules: Annotated[list[LoraModule], Field(min_length=1)] | None = Field(
        None, description="in place of mrm.lora_modules (null: the same)"
    )
    learning_rate: float | None = Field(None, gt=0, description="in place of mrm.learning_rate (null: the same)")
    schedule: Literal["constant", "cosine"] | None = Field(None, description="in place of mrm.schedule (null: the same)")
    epochs: float | None = Field(None, gt=0, description="in place of mrm.epochs (null: the same)")


class MRM(Section):
    """Saffron-1, the multifurcation reward model."""

    origin: Literal["train", "released"] = Field("train", alias="from", description="train it, or load the authors' release")
    released: str | None = Field(
        None,
        description="local folder of the authors' release (adapter, lm_head_bias.pt, unseen_mask.pt); the adapter is merged at "
        "the scale that its adapter_config.json describes",
    )
    released_bias: bool = Field(False, description="add the release's bias, an untrained initialisation never used by its code")
    released_unseen: int = Field(92_013, ge=0, description="unseen tokens the release's mask must have")
    lora_rank: int = Field(4, ge=1, description="rank of LoRA (paper: 4)")
    lora_alpha: float = Field(4.0, gt=0, description="LoRA alpha (release: 4)")
    lora_modules: Annotated[list[LoraModule], Field(min_length=1)] = Field(
        ["q_proj", "v_proj"],
        description="linear layers of every decoder layer that LoRA is put on (release: q_proj, v_proj); a small MRM needs more",
    )
    unembedding_scale: float = Field(
        1.0,
        gt=0,
        description="factor on the guard's lm_head at the start (paper: 1); a language model's logits are many times as large as "
        "rewards, and a small MRM does not unlearn that",
    )
    centred_verdicts: bool = Field(
        False,
        description="take the mean of the lm_head's rows of the two verdict words from both at the start (paper: no), as a guard "
        "has learnt to say one or the other and M would be highest for these words",
    )
    learning_rate: float = Field(1e-4, gt=0, description="AdamW learning rate (release: 1e-4)")
    schedule: Literal["constant", "cosine"] = Field("constant", description="learning-rate schedule")
    order: Literal["packed", "paper"] = Field(
        "packed", description="packed: all prefixes of a conversation in one causal pass; paper: one prefix per row, shuffled"
    )
    batch_size: int = Field(4, ge=1, description="rows per step: conversations if packed, prefixes if paper")
    epochs: float = Field(1.0, gt=0, description="passes over the training split")
    processes: int = Field(
        1, ge=1, description="processes that share the rows of each step, one GPU each (accelerate); at most batch_size"
    )
    draw: int = Field(
        0,
        ge=0,
        description="added to the training seed for the MRM's initialisation and the order of its rows: another draw of it alone",
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between two checkpoints: what a killed training loses at most")
    evaluation_prefixes: int = Field(10_000, ge=1, description="held-out prefixes of Figure 4b")
    variants: dict[str, MRMVariant] = Field(
        default_factory=lambda: {"default": MRMVariant()}, description="models to train, by name"
    )

    @model_validator(mode="after")
    def _released_has_a_folder(self) -> MRM:
        if self.origin == "released" and self.released is None:
            raise ValueError("mrm.from is released: set mrm.released to the folder of the release")
        if "default" not in self.variants:
            raise ValueError("mrm.variants needs the entry default")
        if self.processes > self.batch_size:
            raise ValueError(f"mrm.processes: {self.processes} processes cannot share mrm.batch_size {self.batch_size} rows")
        return self

    def of_variant(self, name: str) -> MRM:
        """The settings of one variant: its own keys in place of these, and no other variant beside it."""
        variant = self.variants[name]
        own = {key: getattr(variant, key) for key in type(variant).model_fields if key in type(self).model_fields}
        return self.model_copy(
            update={key: value for key, value in own.items() if value is not None} | {"variants": {name: variant}}
        )


# ------------------------------------------------------------------------------------------------------------- search
#: Settings of every search method that is found (saffron.methods), by name.
SETTINGS: dict[str, Any] = {
    name: (found.settings, Field(default_factory=found.settings, description=found.summary)) for name, found in methods().items()
}
if TYPE_CHECKING:
    MethodName = str

    class Methods(Section):
        """Default settings of every search method."""
else:
    MethodName = Literal[tuple(methods())]
    Methods = create_model("Methods", __base__=Section, __doc__="Default settings of every search method.", **SETTINGS)


#: Far above any budget that can be searched; what lies above it is a slip of the pen.
LARGEST_BUDGET = 100_000


class Run(Section):
    """One method at some budgets within an experiment: one Snakemake job per shard."""

    method: MethodName = Field(..., description="search method")
    budgets: Annotated[list[int], Field(min_length=1)] = Field(
        ..., description="samples or width, as the method says; 0 without any"
    )
    settings_id: str = Field("default", pattern=r"^[a-z0-9_.]+$", description="name of these settings in tables and paths")
    settings: dict[str, Any] = Field(default_factory=dict, description="what differs from search.methods.<method>")
    policy: Literal["policy", "deepalign"] = Field("policy", description="which policy generates")
    attack: bool = Field(True, description="prefill the response with the reference answer's first tokens")

    @model_validator(mode="after")
    def _budgets_fit(self) -> Run:
        if method(self.method).budget is None and self.budgets != [0]:
            raise ValueError(f"{self.method} searches nothing: budgets must be [0]")
        if method(self.method).budget is not None and min(self.budgets) < 1:
            raise ValueError(f"budgets of {self.method} must be 1 or more")
        if max(self.budgets) > LARGEST_BUDGET:
            raise ValueError(f"budgets of {self.method} must be at most {LARGEST_BUDGET:,}: none larger was ever finished")
        if len(set(self.budgets)) < len(self.budgets):
            raise ValueError("budgets must differ")
        return self

    @property
    def key(self) -> str:
        """Unique name of the run within its experiment, as used in paths."""
        return f"{self.method}-{self.settings_id}"


class Match(Section):
    """Choose each method's budget by compute alone."""

    method: MethodName = Field("best_of_n", description="the method whose compute is matched")
    budget: int = Field(32, ge=1, description="its budget")
    tolerance: float = Field(1.05, ge=1, description="largest allowed ratio of mean compute")
    convention: Convention = Field(
        "once", description="count FLOPs once, or per model: times the number of loaded models, as in the paper"
    )


Group = Literal["replicate", "ablations", "development"]


class Experiment(Section):
    """Runs on one dataset, stored as one table."""

    dataset: str = Field(..., description="a prompt set of sources.prompts")
    role: Role | None = Field(None, description="what figures, tables and claims take it for (null: nothing but itself)")
    runs: Annotated[list[Run], Field(min_length=1)] = Field(..., description="methods and budgets")
    prompts: int | None = Field(None, ge=1, description="only the first prompts by id (null: all)")
    match: Match | None = Field(
        None, description="run every method only at the budget matched by compute, chosen among its budgets"
    )
    seeds: Annotated[list[int], Field(min_length=1)] | None = Field(None, description="search seeds (null: search.seeds)")
    group: Group = Field("replicate", description="which target builds it")

    @model_validator(mode="after")
    def _unique_runs(self) -> Experiment:
        keys = [run.key for run in self.runs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"runs {twice} stand twice: give each its own settings_id")
        if self.match and self.match.method not in {run.method for run in self.runs}:
            raise ValueError(f"match.method {self.match.method} is not among the runs: add it")
        if self.match and self.reference and self.match.budget not in self.reference.budgets:
            raise ValueError(f"match.budget {self.match.budget} is not among the budgets of {self.reference.key}: add it")
        return self

    @property
    def reference(self) -> Run | None:
        """The run whose compute the others are matched to: the first of the method; None if nothing is matched."""
        return next((run for run in self.runs if self.match and run.method == self.match.method), None)

    def budgets_of(self, run: Run) -> list[int]:
        """Budgets a run may use, increasing."""
        return [self.match.budget] if self.match and run == self.reference else sorted(run.budgets)


def _are_seeds(seeds: list[int]) -> bool:
    return min(seeds) >= 0 and len(set(seeds)) == len(seeds)


class Search(Section):
    """Outputs of every method, budget, dataset and seed."""

    seeds: Annotated[list[int], Field(min_length=1)] = Field([0], description="search seeds")
    prefill_tokens: int = Field(10, ge=0, description="tokens of the reference answer that the attack prefills")
    max_new_tokens: int = Field(32, ge=1, description="tokens generated after the prefill")
    block_size: int = Field(16, ge=1, description="prompts per resumable block; a batch never crosses a block")
    shards: int = Field(1, ge=1, description="independent jobs per run")
    jobs: Literal["runs", "models", "seeds"] = Field(
        "runs",
        description="one job: a shard of a run; all runs of a training seed that load the same models; all its searches",
    )
    methods: Methods = Field(default_factory=Methods, description="default settings of every method")
    experiments: Annotated[dict[str, Experiment], Field(min_length=1)] = Field(..., description="what is run, by name")

    @field_serializer("methods", mode="wrap")
    def _methods_that_matter(self, methods: Any, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without methods that no run uses and nobody set: that one is installed changes no config, so no job."""
        used = {run.method for experiment in self.__dict__.get("experiments", {}).values() for run in experiment.runs}
        chosen = {name for name, settings in methods if name in used or settings != type(settings)()}
        return {name: values for name, values in serialise(methods).items() if name in chosen}

    @model_validator(mode="after")
    def _seeds_differ(self) -> Search:
        for name, experiment in self.experiments.items():
            if not _are_seeds(self.seeds_of(experiment)):
                raise ValueError(f"search seeds of experiment {name} must be 0 or more and differ")
        return self

    @model_validator(mode="after")
    def _roles_are_whole(self) -> Search:
        found = roles.problems(self)
        if found:
            raise ValueError("; ".join(f"experiments.{line}" for line in found))
        return self

    @model_validator(mode="after")
    def _something_is_replicated(self) -> Search:
        if all(item.group != "replicate" for item in self.experiments.values()):
            raise ValueError("experiments: none is part of `make replicate`, which then has no results; leave group out of one")
        return self

    @model_validator(mode="after")
    def _names_are_parts_of_paths(self) -> Search:
        for name in self.experiments:
            if not re.fullmatch(r"[a-zA-Z0-9_]+", name):
                raise ValueError(f"experiments: {name!r} is no name of a file; take letters, digits and _ alone")
        return self

    @model_validator(mode="after")
    def _settings_are_valid(self) -> Search:
        for name, experiment in self.experiments.items():
            for run in experiment.runs:
                try:
                    self.settings_of(run)
                except ValidationError as error:
                    first = error.errors()[0]
                    raise ValueError(
                        f"experiments.{name}.runs[{run.key}].settings.{'.'.join(map(str, first['loc']))}: {_remedy(first)}"
                    ) from None
        return self

    def seeds_of(self, experiment: Experiment) -> list[int]:
        """Search seeds of an experiment: its own, else everyone's."""
        return experiment.seeds or self.seeds

    def defaults(self, method: str) -> Section:
        """Settings of a method in every run that says nothing else."""
        return getattr(self.methods, method)

    def settings_of(self, run: Run) -> Section:
        """Settings of a run: its method's defaults with the run's own merged over them."""
        defaults = self.defaults(run.method)
        return type(defaults).model_validate({**defaults.model_dump(), **run.settings})


# -------------------------------------------------------------------------------------------------------------- judges
#: What the rows of tables hold under these names, beside what each judge says under its own.
COLUMNS = frozenset(
    {
        *("method", "settings_id", "budget", "n", "flops", "flops_per_model", "ratio", "within_tolerance"),
        *("knob", "value", "limit", "reward_calls", "n_new_tokens", "finished"),
    }
)


class Judge(Section):
    """One judge, or one measurement, of stored outputs."""

    name: str = Field(
        ..., pattern=r"^[a-z][a-z0-9_]*$", description="name of your choice: tables and figures say `by <name>`, paths have it"
    )
    kind: str = Field(..., description="a kind of judge that is there, or `module:function` (docs/judges.md)")
    settings: dict[str, Any] = Field(default_factory=dict, description="what differs from the kind's defaults")
    experiments: Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="null: it judges every experiment and stands in every table; a list: these alone, with `make ablations`, in "
        "a table of its own",
    )

    @model_validator(mode="after")
    def _is_known(self) -> Judge:
        try:
            _ = self.settings_of_kind
        except JudgeError as error:
            raise ValueError(str(error)) from None
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{self.name}: settings.{'.'.join(map(str, first['loc']))}: {_remedy(first)}") from None
        if kind(self.kind).measures and self.experiments is None:
            raise ValueError(f"{self.name}: {self.kind} measures and judges nothing: name its experiments")
        return self

    @property
    def settings_of_kind(self) -> Any:
        """Its settings, all of them."""
        return kind(self.kind).settings.model_validate(self.settings)


# --------------------------------------------------------------------------------------------- analysis, figures, report
class Ablation(Section):
    """Runs of one experiment that differ in one setting: one figure, one table."""

    experiment: str = Field("ablations", description="the experiment that holds the runs")
    runs: Annotated[list[str], Field(min_length=2)] = Field(
        ..., description="<method>-<settings_id>; the first of each method is what its others are compared with"
    )


class Analysis(Section):
    """Statistics."""

    confidence: float = Field(0.95, gt=0, lt=1, description="level of every interval")
    bootstrap_samples: int = Field(2_000, ge=100, description="resamples of every bootstrap")
    seed: int = Field(0, description="seed of every bootstrap")
    ablations: dict[str, Ablation] = Field(default_factory=dict, description="ablations by name; each has a figure and a table")


class Report(Section):
    """The HTML report."""

    show_text: bool = Field(True, description="print prompts and outputs; if false they become id, length and reward")


class Config(Section):
    """A whole replication."""

    name: str = Field(
        ..., pattern=r"^[a-z0-9][a-z0-9-]*$", description="name of the config; results go to data/<name> and figures/<name>"
    )
    train_seeds: Annotated[list[int], Field(min_length=1)] = Field([0], description="seeds of every trained model")
    runtime: Runtime = Field(default_factory=Runtime, description="how numbers are computed")
    sources: Sources = Field(..., description="conversations and attack prompts")
    models: Models = Field(..., description="policy and guard")
    safety4m: Safety4M = Field(..., description="token-level rewards")
    mrm: MRM = Field(..., description="the multifurcation reward model")
    search: Search = Field(..., description="searches")
    judges: Annotated[list[Judge], Field(min_length=1)] = Field(
        default_factory=lambda: [Judge(name="guard", kind="guard")],
        description="who judges stored outputs: the first decides attack success, the others stand beside it in every table",
    )
    analysis: Analysis = Field(default_factory=Analysis, description="statistics")
    report: Report = Field(default_factory=Report, description="the report")

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if name == "reference":
            raise ValueError("data/reference holds published numbers; take another name")
        return name

    @field_validator("train_seeds")
    @classmethod
    def _train_seeds_differ(cls, seeds: list[int]) -> list[int]:
        if not _are_seeds(seeds):
            raise ValueError("training seeds must be 0 or more and differ")
        return seeds

    @field_validator("judges")
    @classmethod
    def _judges_differ_and_the_first_decides(cls, judges: list[Judge]) -> list[Judge]:
        names = [judge.name for judge in judges]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{twice} stand twice: give each its own name")
        columns = [key for name in names for key in (name, f"{name}_difference", f"scaleff_{name}")]
        for judge in judges:
            if judge.name in COLUMNS or columns.count(judge.name) > 1:
                raise ValueError(f"a table has a column {judge.name}: give judge {judge.name} another name")
        if judges[0].experiments is not None:
            raise ValueError(f"the first decides attack success everywhere: take the experiments of {names[0]} out")
        return judges

    @model_validator(mode="after")
    def _judges_have_what_they_read(self) -> Config:
        for judge in self.judges:
            unknown = sorted(set(judge.experiments or ()) - set(self.search.experiments))
            if unknown:
                raise ValueError(f"judges: {judge.name} judges {unknown}, which search.experiments does not define")
            if kind(judge.kind).knows_truth and (foreign := self._not_of_the_sandbox(judge)):
                raise ValueError(
                    f"judges: {judge.name} ({judge.kind}) knows the sandbox's world alone, prompt set {foreign} is not of it; "
                    f"{self._remedy_for_truth(judge)}"
                )
            made = self.models.hub is None or self.models.hub.other_guard is not None
            if self.models.origin == "hub" and not made and "other_guard" in kind(judge.kind).reads(judge.settings_of_kind):
                raise ValueError(
                    f"judges: {judge.name}: there is no other guard; name one in settings.checkpoint, or say in "
                    "models.hub.other_guard how to train it"
                )
        return self

    def _not_of_the_sandbox(self, judge: Judge) -> str | None:
        """The first prompt set that a judge reads answers to and that is not the sandbox's."""
        judged = judge.experiments or self.search.experiments
        sets = {self.search.experiments[name].dataset for name in judged} & set(self.sources.prompts)
        return next((name for name in sorted(sets) if self.sources.prompts[name].origin != "sandbox"), None)

    def _remedy_for_truth(self, judge: Judge) -> str:
        """What to write where a judge that knows the sandbox's truth reads answers to other prompts."""
        items, sets = self.search.experiments.items(), self.sources.prompts
        its = [name for name, item in items if item.dataset in sets and sets[item.dataset].origin == "sandbox"]
        if not its:
            return "no experiment is run on the sandbox's prompts, so remove the judge"
        limited = f"limit it to those that are: experiments: [{', '.join(its)}] (shown with `make ablations`)"
        return f"put another judge first, which decides, and {limited}" if judge is self.judges[0] else f"{limited}, or remove it"

    @model_validator(mode="after")
    def _prompt_sets_exist(self) -> Config:
        for name, experiment in self.search.experiments.items():
            if experiment.dataset not in self.sources.prompts:
                raise ValueError(
                    f"search.experiments.{name}.dataset: no prompt set {experiment.dataset}; sources.prompts has "
                    f"{', '.join(self.sources.prompts)}"
                )
            attacked = [run.key for run in experiment.runs if run.attack]
            if self.sources.is_benign(experiment.dataset) and attacked:
                raise ValueError(
                    f"search.experiments.{name}: benign prompts have no answer to prefill; set attack: false for {attacked}"
                )
        return self

    @model_validator(mode="after")
    def _sandbox_models_have_a_world(self) -> Config:
        if self.models.origin == "sandbox" and self.sources.sandbox is None:
            raise ValueError("models.from is sandbox, whose models learn from its world: add the section sources.sandbox")
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> Config:
        for name, experiment in self.search.experiments.items():
            for run in experiment.runs:
                if run.policy == "deepalign" and self.models.origin == "hub":
                    raise ValueError(
                        f"search.experiments.{name}: run {run.key} needs the DeepAlign policy, which only the sandbox trains: "
                        "the paper's has another tokenizer than the guard; remove the run"
                    )
                variant = method(run.method).mrm(self.search.settings_of(run))
                if variant is not None and variant not in self.mrm.variants:
                    raise ValueError(
                        f"search.experiments.{name}: run {run.key} uses the MRM {variant}, which mrm.variants does not define"
                    )
        for name, ablation in self.analysis.ablations.items():
            holding = self.search.experiments.get(ablation.experiment)
            known = [run.key for run in holding.runs] if holding else []
            unknown = [key for key in ablation.runs if key not in known]
            if unknown:
                raise ValueError(f"analysis.ablations.{name}: search.experiments.{ablation.experiment} has no runs {unknown}")
        return self


def parse(values: Any, where: str) -> Config:
    """Validate a resolved config (a mapping); ``where`` names its origin in errors.

    Raises:
        ConfigError: one line per problem, each with the key and the remedy.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: the config must be a mapping of sections, not {type(values).__name__}")
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [f"  {_key(item) or '(top level)'}: {_remedy(item)}" for item in error.errors()]
        raise ConfigError("\n".join([f"{where}: {len(lines)} problem(s) in the config:", *lines])) from None


def _key(item: Any) -> str:
    """The key of a problem, without the tags of ModelFile and GuardFile."""
    return ".".join(str(part) for part in item["loc"] if not str(part).startswith("("))


def _remedy(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "unknown key; remove it or correct its name (all keys: config/README.md)"
    if item["type"] == "missing":
        return "missing; add it (its meaning: config/README.md)"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return message
    return f"{message}, got {item['input']!r}{_as_number(item)} (allowed values: config/README.md)"


#: A number in scientific notation, which YAML reads as text unless it has a point and a sign: 1.0e-3, 1.0e+3.
_SCIENTIFIC = re.compile(r"(?P<mantissa>[-+]?\d+)(?:\.(?P<fraction>\d*))?[eE](?P<sign>[-+]?)(?P<exponent>\d+)")


def _as_number(item: Any) -> str:
    """How to write a number that YAML took for text; empty where that is not what is wrong."""
    found = _SCIENTIFIC.fullmatch(str(item["input"])) if item["type"] in ("float_type", "int_type") else None
    if found is None:
        return ""
    if item["type"] == "int_type":
        return "; YAML reads this as text: write it out in digits"
    mantissa, fraction, sign, exponent = found.groups()
    return f"; YAML reads this as text: write {mantissa}.{fraction or 0}e{sign or '+'}{exponent}"


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which no key of a mapping stands twice, where plain YAML lets the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, (key_node, _) in zip(keys, node.value, strict=True):
            if keys.count(key) > 1 and key_node.value != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        return super().construct_mapping(node, deep=deep)


def load(path: str | Path) -> Config:
    """Read and validate ``config/<name>.yaml``.

    Raises:
        ConfigError: if the file is missing, is not YAML or does not describe a replication.
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text("utf-8"), _UniqueKeys)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config; the shipped ones are in config/") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    return parse(values, str(path))


def as_dict(section: BaseModel) -> dict[str, Any]:
    """A section as plain YAML values, under the names used in the file."""
    return json.loads(section.model_dump_json(by_alias=True))
