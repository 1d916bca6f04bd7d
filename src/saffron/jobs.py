"""What a job reads, said once: every value that its result depends on, beside the files that are its inputs.

A job record is the params of its Snakemake rule, the key of the intermediate results that it keeps, what is stored beside
its result, and what its function is given. So a value that is not in it cannot be read, and one that is in it cannot change
unnoticed. Part of it is ``code``, one digest of all modules that the function can reach (:mod:`saffron.code`).

Records are made here from a config, one function per kind of job.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, SkipValidation

from saffron import code, hub, roles, workflow
from saffron.config import (
    MRM,
    Config,
    ConfigError,
    Experiment,
    Match,
    Models,
    MRMVariant,
    PromptSet,
    Run,
    Runtime,
    Safety4M,
    Sources,
    TruncatedGuard,
    as_dict,
)
from saffron.judges.discovery import kind, module
from saffron.methods.discovery import method as described
from saffron.section import Section
from saffron.sources import files, reading

DeviceMap = Literal["auto"] | None
Part = TypeVar("Part", bound=Section)


class Job(Section):
    """Base of every job record."""

    code: str = Field(..., description="digest of the code that it can reach")

    @property
    def line(self) -> str:
        """One line of JSON; equal for equal values (a changing order would run the rule again forever)."""
        return json.dumps(as_dict(self), sort_keys=True)

    @property
    def key(self) -> dict[str, Any]:
        """What the intermediate results that it keeps depend on, beside input files."""
        return as_dict(self)


def beside(path: Path) -> Path:
    """Where the job of a result, a file or a folder, is stored: beside it, under its name."""
    return path.with_name(f"{path.stem}.job.json")


def narrowed(section: Part, *paths: str) -> Part:
    """A section with some of its keys alone, so that a function that is given it can read no other.

    Args:
        section: any.
        paths: dotted names below it; a section stands for all its keys.
    """
    kept: dict[str, list[str]] = {}
    for path in paths:
        name, _, rest = path.partition(".")
        kept.setdefault(name, []).append(rest)
    part: Any = type(section).model_construct()
    values = {name: getattr(section, name) for name in kept}
    part.__dict__.clear()
    for name, below in kept.items():
        part.__dict__[name] = values[name] if values[name] is None or not all(below) else narrowed(values[name], *below)
    return part


class ConfigJob(Job):
    """A job that reads many sections: a config without the keys that it does not read."""

    config: SkipValidation[Config]
    methods: dict[str, dict[str, Any]] = Field(
        default_factory=dict, exclude_if=lambda methods: not methods, description="how every method is described that it shows"
    )


# ------------------------------------------------------------------------------------------------------------ sources
class PromptsJob(Job):
    """Writing a prompt set that has a source of its own."""

    name: str
    rows: SkipValidation[PromptSet]
    attacked: bool = Field(..., description="whether references are prefilled, so that none may be missing")
    content: dict[str, str] = Field(..., description="sha256 of every local file that is read, by name")


class SourcesJob(Job):
    """Writing the conversations, and the prompt sets that are parts of a split or of the sandbox's world."""

    sources: SkipValidation[Sources]
    attacked: list[str] = Field(..., description="prompt sets whose references are prefilled, so that none may be missing")
    content: dict[str, dict[str, str]] = Field(..., description="sha256 of every local file that is read, by key and name")


def sources(config: Config) -> SourcesJob:
    """The sources of a config, without prompt sets that have a source of their own."""
    shared = {name: rows for name, rows in config.sources.prompts.items() if name not in workflow.own_prompts(config)}
    section = config.sources.model_copy(update={"prompts": shared})
    read = sorted({rows.reader for _, rows in section.all_rows() if rows.reader is not None})
    found = {f"sources.{key}": files.local_digests(rows, f"sources.{key}") for key, rows in section.all_rows()}
    return SourcesJob(
        code=code.digest("saffron.sources.stage", *(module for name in read for module in reading.modules(name))),
        sources=section,
        attacked=[name for name in workflow.attacked(config) if name in shared],
        content={key: digests for key, digests in found.items() if digests},
    )


def prompts(config: Config, name: str) -> PromptsJob:
    """One prompt set that has a source of its own.

    Raises:
        ConfigError: if there is none of this name.
    """
    if name not in workflow.own_prompts(config):
        own = ", ".join(workflow.own_prompts(config)) or "none"
        raise ConfigError(f"sources.prompts: no set {name} with a source of its own; there are: {own}")
    rows = config.sources.prompts[name]
    return PromptsJob(
        code=code.digest("saffron.sources.stage", *reading.modules(str(rows.reader))),
        name=name,
        rows=rows,
        attacked=name in workflow.attacked(config),
        content=files.local_digests(rows, f"sources.prompts.{name}"),
    )


def _content(config: Config, section: str, *keys: str) -> dict[str, str]:
    """Digests of what lies in local mirrors, by key; a mirror that is missing is refused by the job itself.

    Args:
        config: any.
        section: ``sources`` or ``models``.
        keys: of which (default: all).
    """
    found = {}
    for key, _, file in hub.files(config):
        name = key.rpartition(".")[2]
        if file.path is not None and key.startswith(f"{section}.") and name in (keys or (name,)) and Path(file.path).exists():
            found[key] = hub.contents(Path(file.path))
    return found


# ------------------------------------------------------------------------------------------------------------- models
#: Keys of models.sandbox and models.hub that each model reads.
READ_BY_MODEL = {
    "tokenizer": ("vocab_size", "guard_question", "policy", "policy_format", "guard", "chat_formats", "control_tokens_in_text"),
    "policy": ("policy", "policy_pretraining", "policy_safety"),
    "guard": ("guard", "guard_training", "guard_outcome_share"),
    "other_guard": ("guard", "other_guard", "guard_training", "guard_outcome_share"),
    "deepalign": ("deepalign_training",),
}
#: Of these the sandbox's tokenizer reads no model's size.
READ_BY_SANDBOX_TOKENIZER = ("vocab_size", "guard_question")


class ModelJob(Job):
    """Making the tokenizer or a model: training it in the sandbox, fetching it from the hub."""

    which: str
    seed: int | None = Field(..., description="None for the tokenizer, which all training seeds share")
    models: SkipValidation[Models]
    runtime: Runtime | None = Field(..., description="None for the tokenizer, which computes nothing")
    content: dict[str, str] = Field(..., description="digest of every local mirror and file of chat formats, by key")


def model(config: Config, which: str, seed: int | None = None) -> ModelJob:
    """``tokenizer``, or ``policy``, ``guard``, ``other_guard`` or ``deepalign`` of one training seed."""
    origin, section = config.models.origin, getattr(config.models, config.models.origin)
    keys = [key for key in READ_BY_MODEL[which] if key in type(section).model_fields]
    if which == "tokenizer" and origin == "sandbox":
        keys = list(READ_BY_SANDBOX_TOKENIZER)
    if any(isinstance(getattr(section, key), TruncatedGuard) for key in keys if key != "policy"):
        keys.append("policy")
    content = _content(config, "models", *keys)
    own = getattr(section, "chat_formats", None) if "chat_formats" in keys else None
    if isinstance(own, str) and Path(own).exists():
        content["models.hub.chat_formats"] = hub.contents(Path(own))
    return ModelJob(
        code=code.digest("saffron.models.sandbox.making" if origin == "sandbox" else "saffron.models.trained"),
        which=which,
        seed=seed,
        models=narrowed(config.models, "origin", *(f"{origin}.{key}" for key in keys)),
        runtime=None if which == "tokenizer" else config.runtime,
        content=content,
    )


# ----------------------------------------------------------------------------------------------------------- safety4m
class OnPolicy(Section):
    """The attack under which the policy answers for labels on its own answers."""

    prefill_tokens: int = Field(..., description="tokens of the answer that it goes on from")
    max_new_tokens: int = Field(..., description="tokens of its own at most")


class LabelJob(Job):
    """Labelling the conversations with a guard, in shards; and joining them."""

    seed: int
    safety4m: Safety4M
    runtime: Runtime
    device_map: DeviceMap
    config: str = Field(..., description="name of the config, for the card")
    guard: str = Field(..., description="name of the guard, for the card")
    on_policy: OnPolicy | None = Field(
        None,
        exclude_if=lambda on_policy: on_policy is None,
        description="how the policy rewrites safety4m.on_policy_share (None: it rewrites none)",
    )

    @property
    def key(self) -> dict[str, Any]:
        """Of a block: what names things and how blocks are dealt to shards do not count, the seed only where it draws answers."""
        values = as_dict(self)
        del values["safety4m"]["shards"]
        drawn = () if self.on_policy is None else ("on_policy", "seed")
        return {name: values[name] for name in ("code", "safety4m", "runtime", "device_map", *drawn)}


def label(config: Config, seed: int) -> LabelJob:
    """Labels of one training seed."""
    search, on_policy = config.search, config.safety4m.on_policy_share > 0
    return LabelJob(
        code=code.digest("saffron.safety4m.build", *(["saffron.safety4m.on_policy"] if on_policy else [])),
        seed=seed,
        safety4m=config.safety4m,
        runtime=config.runtime,
        device_map=config.models.device_map,
        config=config.name,
        guard=config.models.hub.guard.id if config.models.hub and config.models.origin == "hub" else "the sandbox's guard",
        on_policy=OnPolicy(prefill_tokens=search.prefill_tokens, max_new_tokens=search.max_new_tokens) if on_policy else None,
    )


# ---------------------------------------------------------------------------------------------------------------- mrm
class TrainJob(Job):
    """Training one variant of the MRM, or loading the authors' release."""

    seed: int
    variant: str
    mrm: SkipValidation[MRM] = Field(
        ..., description="the variant alone in its variants; what the evaluation reads left at its default"
    )
    runtime: Runtime
    device_map: DeviceMap
    base: str = Field(..., description="name of the model that is adapted")

    @property
    def key(self) -> dict[str, Any]:
        """Of a checkpoint: how often one is written does not count."""
        values = as_dict(self)
        del values["mrm"]["checkpoint_every"]
        return values


class EvaluateJob(Job):
    """Comparing one MRM with the guard on held-out prefixes, and writing its card."""

    seed: int
    variant: str
    mrm: SkipValidation[MRM] = Field(..., description="the variant alone in its variants")
    runtime: Runtime
    device_map: DeviceMap
    confidence: float = Field(..., description="level of the intervals")
    bootstrap_samples: int = Field(..., description="resamples behind them")
    config: str = Field(..., description="name of the config, for the card")


def train(config: Config, seed: int, variant: str = "default") -> TrainJob:
    """Training of one variant on one training seed."""
    evaluated = MRM.model_fields["evaluation_prefixes"].default
    hub = config.models.hub if config.models.origin == "hub" else None
    return TrainJob(
        code=code.digest("saffron.mrm.training"),
        seed=seed,
        variant=variant,
        mrm=config.mrm.of_variant(variant).model_copy(update={"evaluation_prefixes": evaluated}),
        runtime=config.runtime,
        device_map=config.models.device_map,
        base=hub.guard.id if hub else f"{config.name}/guard",
    )


def evaluate(config: Config, seed: int, variant: str = "default") -> EvaluateJob:
    """Evaluation of one variant on one training seed."""
    return EvaluateJob(
        code=code.digest("saffron.mrm.evaluation"),
        seed=seed,
        variant=variant,
        mrm=config.mrm.of_variant(variant),
        runtime=config.runtime,
        device_map=config.models.device_map,
        confidence=config.analysis.confidence,
        bootstrap_samples=config.analysis.bootstrap_samples,
        config=config.name,
    )


# ------------------------------------------------------------------------------------------------------------- search
class SearchJob(Job):
    """One run of an experiment on one training seed."""

    settings_code: str = Field(..., description="digest of what the method's settings do")
    multipliers: dict[str, int] = Field(
        default_factory=dict,
        exclude_if=lambda multipliers: not multipliers,
        description="how often the paper counts an operation of each method, where that matches them",
    )
    seed: int
    experiment: str
    dataset: str
    prompts: int | None
    method: str
    settings_id: str
    settings: dict[str, Any] = Field(..., description="all settings of the method")
    policy: Literal["policy", "deepalign"]
    attack: bool
    mrm: str | None = Field(..., description="the MRM that the method reads, if it reads one")
    variant: MRMVariant | None = Field(..., description="what that MRM is")
    others: dict[str, MRMVariant] = Field(
        default_factory=dict, exclude_if=lambda others: not others, description="the MRMs beside it in an ensemble"
    )
    budgets: list[int] = Field(..., description="budgets that it may be run at, increasing")
    search_seeds: list[int]
    match: Match | None
    reference: str | None = Field(..., description="key of the run whose compute this one is matched to (None: not matched)")
    prefill_tokens: int
    max_new_tokens: int
    block_size: int
    shards: int
    runtime: Runtime
    device_map: DeviceMap

    @property
    def run(self) -> str:
        """Key of the run."""
        return f"{self.method}-{self.settings_id}"

    @property
    def mrms(self) -> list[str]:
        """All MRMs that it reads."""
        return [] if self.mrm is None else [self.mrm, *self.others]

    @property
    def key(self) -> dict[str, Any]:
        """Of a block, whose file names search seed and budget; with shared budgets, all budgets count."""
        values = as_dict(self)
        cut = {"seed", "experiment", "search_seeds", "match", "reference", "multipliers", "shards"}
        cut |= set() if described(self.method).shared_budgets else {"budgets"}
        return {name: value for name, value in values.items() if name not in cut}


class GatherJob(Job):
    """Joining the runs of an experiment into one table."""

    seed: int
    experiment: str
    runs: list[SearchJob]


def search(config: Config, seed: int, experiment: str, run: str) -> SearchJob:
    """One run of an experiment on one training seed.

    Raises:
        ConfigError: if there is no such experiment or run.
    """
    item, entry = _experiment(config, experiment), _run(config, experiment, run)
    return _search(config, seed, experiment, item, entry, "saffron.search.runner")


def _search(config: Config, seed: int, experiment: str, item: Experiment, entry: Run, module: str) -> SearchJob:
    settings, found = config.search.settings_of(entry), described(entry.method)
    mrms = found.mrms(settings)
    reference = item.reference if item.reference is not None and entry != item.reference else None
    match = item.match if reference else None
    counted = {entry.method, match.method} if match and match.convention == "per_model" else set()
    return SearchJob(
        code=code.digest(module, found.search.partition(":")[0]),
        settings_code=code.digest_of_settings(found.settings),
        multipliers={name: described(name).multiplier() for name in sorted(counted)},
        seed=seed,
        experiment=experiment,
        dataset=item.dataset,
        prompts=item.prompts,
        method=entry.method,
        settings_id=entry.settings_id,
        settings=as_dict(settings),
        policy=entry.policy,
        attack=entry.attack,
        mrm=mrms[0] if mrms else None,
        variant=config.mrm.variants[mrms[0]] if mrms else None,
        others={name: config.mrm.variants[name] for name in mrms[1:]},
        budgets=item.budgets_of(entry),
        search_seeds=config.search.seeds_of(item),
        match=match,
        reference=reference.key if reference else None,
        prefill_tokens=config.search.prefill_tokens,
        max_new_tokens=config.search.max_new_tokens,
        block_size=config.search.block_size,
        shards=config.search.shards,
        runtime=config.runtime,
        device_map=config.models.device_map,
    )


def searches(config: Config, seed: int, runs: Iterable[tuple[str, str]]) -> list[SearchJob]:
    """Several runs, given as experiment and key, on one training seed."""
    return [search(config, seed, *run) for run in runs]


def gather(config: Config, seed: int, experiment: str) -> GatherJob:
    """All runs of an experiment on one training seed.

    Raises:
        ConfigError: if there is no such experiment.
    """
    runs = searches(config, seed, [(experiment, run.key) for run in _experiment(config, experiment).runs])
    return GatherJob(code=code.digest("saffron.search.gathering"), seed=seed, experiment=experiment, runs=runs)


#: Recorded prompts, and the width of both searches: enough to see sharing, few enough to draw.
RECORDED_PROMPTS, RECORDED_WIDTH = 3, 8


def trees(config: Config, seed: int) -> SearchJob:
    """The search that Figures 1 and 3 draw: the proposed method on the first prompts of the benchmark of the scaling figures."""
    run = {"method": "saffron", "budgets": [RECORDED_WIDTH], "settings": {"mrm": "default", "scorer": "mrm"}}
    shown = {"dataset": workflow.recorded_prompts(config), "prompts": RECORDED_PROMPTS, "seeds": config.search.seeds[:1]}
    item = Experiment.model_validate({**shown, "runs": [run]})
    return _search(config, seed, "trees", item, item.runs[0], "saffron.search.trees")


def _experiment(config: Config, name: str) -> Experiment:
    if name not in config.search.experiments:
        raise ConfigError(f"search.experiments: no experiment {name}; there are {', '.join(config.search.experiments)}")
    return config.search.experiments[name]


def _run(config: Config, experiment: str, key: str) -> Run:
    runs = {run.key: run for run in _experiment(config, experiment).runs}
    if key not in runs:
        raise ConfigError(f"search.experiments.{experiment}: no run {key}; there are {', '.join(runs)}")
    return runs[key]


# -------------------------------------------------------------------------------------------------------------- judges
class JudgeJob(Job):
    """What one judge says of the stored outputs of an experiment on one training seed."""

    seed: int
    judge: str
    kind: str
    settings: dict[str, Any] = Field(..., description="all settings of the kind")
    experiment: str
    dataset: str
    block_size: int = Field(..., description="answers that it reads at once, if it loads models")
    runtime: Runtime | None = Field(..., description="None for a judge that loads no model")
    device_map: DeviceMap
    content: dict[str, str] = Field(..., description="digest of a model in a local folder, by key")


def judge(config: Config, seed: int, name: str, experiment: str) -> JudgeJob:
    """Judging of an experiment on one training seed.

    Raises:
        ConfigError: if there is no such judge or experiment.
    """
    item = workflow.judge_of(config, name)
    judging, settings = kind(item.kind), item.settings_of_kind
    computes, file = judging.computes(settings), judging.checkpoint(settings)
    local = file is not None and file.path is not None and Path(file.path).exists()
    return JudgeJob(
        code=code.digest("saffron.judges.stage", module(item.kind)),
        seed=seed,
        judge=name,
        kind=item.kind,
        settings=as_dict(settings),
        experiment=experiment,
        dataset=_experiment(config, experiment).dataset,
        block_size=config.search.block_size,
        runtime=config.runtime if computes else None,
        device_map=config.models.device_map if computes else None,
        content={file.path: hub.contents(Path(file.path))} if local and file and file.path else {},
    )


def judges(config: Config, seed: int, name: str, experiments: Iterable[str]) -> list[JudgeJob]:
    """Several experiments by one judge on one training seed."""
    return [judge(config, seed, name, experiment) for experiment in experiments]


# --------------------------------------------------------------------------------------------------- analysis, figures
#: What the statistics read; of the experiments, those of the replication.
READ_BY_ANALYSIS = (
    *("name", "train_seeds", "analysis.confidence", "analysis.bootstrap_samples", "analysis.seed"),
    *("search.methods", "search.seeds", "search.experiments", "mrm.origin", "sources.conversations", "sources.prompts"),
    *("mrm.evaluation_prefixes", "models.origin", "models.hub.policy", "models.hub.guard"),
    *("models.hub.policy_safety", "models.hub.other_guard"),
    *("models.sandbox.policy", "models.sandbox.vocab_size"),
)


def analyse(config: Config) -> ConfigJob:
    """The statistics of a config."""
    read = narrowed(config, *READ_BY_ANALYSIS)
    read.search.__dict__["experiments"] = workflow.experiments(config)
    read.__dict__["judges"] = workflow.judges(config)
    return ConfigJob(code=code.digest("saffron.analysis.stage"), config=read, methods=shown(config))


def shown(config: Config) -> dict[str, dict[str, Any]]:
    """How every method that the config runs is shown and counted; one that is installed and not run is no part of it."""
    used = {run.method for item in config.search.experiments.values() for run in item.runs}
    return {name: described(name).shown for name in sorted(used)}


def outputs(config: Config) -> ConfigJob:
    """Agreement of MRM and guard on stored outputs."""
    read = narrowed(config, "name", "runtime", "search.methods", "search.experiments", "models.origin", "models.hub.device_map")
    read.search.__dict__["experiments"] = workflow.on_development(config)
    return ConfigJob(code=code.digest("saffron.mrm.outputs"), config=read)


def criteria(config: Config) -> ConfigJob:
    """What the sandbox must show on its development split, and of harmless prompts."""
    read = narrowed(config, "name", "train_seeds", "search.experiments")
    read.search.__dict__["experiments"] = workflow.on_development(config) | roles.holders(config.search, "benign")
    read.__dict__["judges"] = workflow.judges(config)
    return ConfigJob(code=code.digest("saffron.analysis.criteria"), config=read)


def provenance(config: Config) -> ConfigJob:
    """The record of a finished run, which holds everything."""
    return ConfigJob(code=code.digest("saffron.runs.provenance"), config=config)
