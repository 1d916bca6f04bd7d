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
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    create_model,
    field_serializer,
    field_validator,
    model_validator,
)

from saffron.methods.discovery import method, methods
from saffron.section import Section

#: How FLOPs are counted: each once, or once for each loaded model.
Convention = Literal["once", "per_model"]


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the file, the key and the remedy."""


# ------------------------------------------------------------------------------------------------------------ runtime
class Runtime(Section):
    """How numbers are computed. Results are identical for any number of jobs or shards, not across these values."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where models run; auto takes a GPU if there is one")
    dtype: Literal["float64", "float32", "bfloat16"] = Field("float32", description="dtype of weights and KV cache")
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
        0.7,
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
        6, ge=1, le=6, description="families of forbidden items in refusals and preference pairs, none of them a prompt set's"
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


class HubFile(Section):
    """One dataset or model on the hub, pinned, or a local mirror of it."""

    id: str = Field(..., pattern=r"^[\w.-]+/[\w.-]+$", description="hub id, owner/name")
    revision: str | None = Field(
        None, description="commit the id is pinned to, 40 hex digits (null: path or, for a dataset, sha256 needed)"
    )
    path: str | None = Field(None, description="local folder to read instead of the hub (an offline mirror)")

    @field_validator("revision")
    @classmethod
    def _is_a_commit(cls, revision: str | None) -> str | None:
        if revision is not None and not re.fullmatch(r"[0-9a-f]{40}", revision):
            raise ValueError(
                f"needs the 40 hex digits of a commit, not {revision!r}: copy one from the repository's commits on the hub"
            )
        return revision


class HubDataset(HubFile):
    """A pinned dataset with what it has to contain."""

    rows: dict[str, int] = Field(..., description="expected number of rows by split or subset")
    sha256: dict[str, str] = Field(
        default_factory=dict,
        description="expected digests by file, as in the hub's layout; where all files read are named, they pin a dataset "
        "without a revision",
    )


class HubSources(Section):
    """The paper's datasets."""

    hh_rlhf: HubDataset = Field(..., description="conversations with columns chosen and rejected")
    harmful_hexphi: HubDataset = Field(..., description="Harmful HEx-PHI: prompts with harmful answers (gated)")
    ai2_refusals: HubDataset = Field(..., description="RewardBench; its refusals-* subsets are used")
    max_rows: int | None = Field(None, ge=1, description="read only the first rows of each split (null: all)")


class Sources(Section):
    """Conversations and attack prompts."""

    origin: Literal["sandbox", "hub"] = Field(
        ..., alias="from", description="sandbox grows its own world, hub reads the paper's datasets"
    )
    sandbox: SandboxSources | None = Field(None, description="settings of the sandbox world")
    hub: HubSources | None = Field(None, description="ids and revisions of the paper's datasets")

    @model_validator(mode="after")
    def _section_of_origin(self) -> Sources:
        if getattr(self, self.origin) is None:
            raise ValueError(f"sources.from is {self.origin}: add the section sources.{self.origin}")
        return self


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


class HubModels(Section):
    """The paper's models."""

    policy: HubFile = Field(..., description="the policy")
    policy_format: str = Field("llama3_policy", description="the policy's entry in chat_formats.json")
    guard: HubFile = Field(..., description="Llama Guard 3 1B: PRM, judge and the MRM's initialisation")
    device_map: Literal["auto"] | None = Field(
        None,
        description="auto: accelerate puts weights straight on the GPU (null: by way of host memory); either way a model that "
        "one GPU does not hold is refused",
    )
    judge: HubFile | None = Field(
        None, description="independent judge of the ablations, of the guard's vocabulary and chat format (null: none)"
    )
    chat_formats: str | None = Field(None, description="chat_formats.json of another model family (null: the paper's)")


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
class MRMVariant(Section):
    """One multifurcation reward model; `default` is the one the paper describes."""

    bias: Literal["trained", "frozen_random", "absent"] = Field("trained", description="the lm_head bias")


class MRM(Section):
    """Saffron-1, the multifurcation reward model."""

    origin: Literal["train", "released"] = Field("train", alias="from", description="train it, or load the authors' release")
    released: str | None = Field(
        None, description="local folder of the authors' release (adapter, lm_head_bias.pt, unseen_mask.pt)"
    )
    released_bias: bool = Field(False, description="add the release's bias, an untrained initialisation never used by its code")
    released_unseen: int = Field(92_013, ge=0, description="unseen tokens the release's mask must have")
    lora_rank: int = Field(4, ge=1, description="rank of LoRA on q_proj and v_proj (paper: 4)")
    lora_alpha: float = Field(4.0, gt=0, description="LoRA alpha (release: 4)")
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

    dataset: str = Field(..., description="name of a prompt set in sources/prompts/")
    runs: Annotated[list[Run], Field(min_length=1)] = Field(..., description="methods and budgets")
    prompts: int | None = Field(None, ge=1, description="only the first prompts by id (null: all)")
    match: Match | None = Field(
        None, description="run every method only at the budget matched by compute, chosen among its budgets"
    )
    seeds: Annotated[list[int], Field(min_length=1)] | None = Field(None, description="search seeds (null: search.seeds)")
    assess: bool = Field(
        False, description="with the ablations, have its outputs judged independently and their likelihood taken"
    )
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
    judge_reads_prefill: bool = Field(False, description="whether the judge reads the prefilled tokens")
    block_size: int = Field(16, ge=1, description="prompts per resumable block; a batch never crosses a block")
    shards: int = Field(1, ge=1, description="independent jobs per run")
    jobs: Literal["runs", "models", "seeds"] = Field(
        "runs",
        description="one job: a shard of a run; all runs of a training seed that load the same models; all its searches",
    )
    oracle: Literal["sandbox", "none"] = Field(..., description="the text oracle that knows whether an output complied")
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

    @model_validator(mode="after")
    def _benign_prompts_are_not_attacked(self) -> Config:
        for name, experiment in self.search.experiments.items():
            attacked = [run.key for run in experiment.runs if run.attack]
            if self.sources.origin == "sandbox" and experiment.dataset == "benign" and attacked:
                raise ValueError(
                    f"search.experiments.{name}: benign prompts have no answer to prefill; set attack: false for {attacked}"
                )
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
                if name == "exploration" and method(run.method).exploration is None:
                    raise ValueError(
                        f"search.experiments.exploration: Table 1 varies nothing of {run.method}; remove run {run.key}"
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
        lines = [f"  {'.'.join(str(part) for part in item['loc']) or '(top level)'}: {_remedy(item)}" for item in error.errors()]
        raise ConfigError("\n".join([f"{where}: {len(lines)} problem(s) in the config:", *lines])) from None


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
