"""What the Snakemake rules ask of a config: which jobs there are and what they need. What each one reads: :mod:`saffron.jobs`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

from saffron import roles
from saffron.config import Config, ConfigError, Experiment, Group, Judge, Match, PackageModel, Run, TruncatedGuard
from saffron.judges.base import Kind
from saffron.judges.discovery import kind
from saffron.layout import Layout
from saffron.methods.discovery import method
from saffron.roles import Role

#: Published numbers of the paper that the analysis compares with, below data/reference/paper/.
PAPER_RECORDS = (
    "claims.yaml",
    "figure2.csv",
    "figure2_fits.csv",
    "figure4b_summary.csv",
    "table1.csv",
    "table2.csv",
    "table3.csv",
)

#: Experiment groups.
GROUPS: tuple[Group, ...] = get_args(Group)


# --------------------------------------------------------------------------------------------------------------- jobs
def prompt_sets(config: Config) -> list[str]:
    """Names of the prompt sets that the sources write."""
    return list(config.sources.prompts)


def own_prompts(config: Config) -> list[str]:
    """Prompt sets with a source of their own, each of which is a job: one more runs nothing else again."""
    return [name for name, rows in config.sources.prompts.items() if rows.reader is not None]


def attacked(config: Config) -> list[str]:
    """Prompt sets that a run attacks by prefilling the beginning of their references."""
    items = config.search.experiments.values()
    return sorted({item.dataset for item in items if config.search.prefill_tokens and any(run.attack for run in item.runs)})


def recorded_prompts(config: Config) -> str:
    """The prompt set of the recorded search that Figures 1 and 3 draw: that of the scaling figures, else the first attacked."""
    scaling = roles.holder(config.search, "scaling")
    if scaling is not None:
        return config.search.experiments[scaling].dataset
    return next(iter([*attacked(config), *(item.dataset for item in config.search.experiments.values())]))


def corpora(config: Config, layout: Layout) -> list[Path]:
    """What models are trained on from scratch: the corpus of the sandbox's world, where there is one."""
    return [layout.corpus] if config.sources.sandbox is not None else []


def trained(config: Config, which: str) -> bool:
    """Whether a model is trained here: all of the sandbox's, a policy that is tuned, a guard of the policy's first layers."""
    if config.models.hub is None or config.models.origin == "sandbox":
        return True
    if which == "policy":
        return config.models.hub.policy_safety is not None
    return isinstance({"guard": config.models.hub.guard, "other_guard": config.models.hub.other_guard}.get(which), TruncatedGuard)


def trained_from_hub(config: Config) -> list[str]:
    """Models that are trained here from one of the hub, of those that searches and the judges of every table read."""
    if config.models.hub is None or config.models.origin == "sandbox":
        return []
    judging = {name for judge in judges(config) for name in models_judging(config, judge.name)}
    return [
        which
        for which in ("policy", "guard", "other_guard")
        if (which != "other_guard" or which in judging) and trained(config, which)
    ]


def learns_from(config: Config, layout: Layout, which: str) -> list[Path]:
    """What a model is trained on: the sandbox's corpus, or the conversations of another world."""
    if config.models.origin == "sandbox":
        return corpora(config, layout)
    return [layout.conversations] if trained(config, which) else []


def needs(config: Config) -> tuple[int, int]:
    """Memory (MB) and time (minutes) that a model job may need: a small model takes little, the paper's do not."""
    if config.models.hub is None or config.models.origin == "sandbox":
        return 2000, 60
    return (6000, 240) if isinstance(config.models.hub.policy, PackageModel) else (64000, 1440)


def model_names(config: Config) -> list[str]:
    """Models that the replication needs, by folder name."""
    policies = {run.policy for item in experiments(config).values() for run in item.runs}
    return sorted({"policy", "guard", *policies})


def experiments(config: Config, group: str | None = "replicate") -> dict[str, Experiment]:
    """Experiments of one target group (None: all), by name."""
    return {name: item for name, item in config.search.experiments.items() if group in (None, item.group)}


def on_development(config: Config) -> dict[str, Experiment]:
    """Experiments on the development prompts, on which every knob is fixed, by name."""
    return {name: item for name, item in config.search.experiments.items() if item.dataset in _datasets(config, "development")}


def _datasets(config: Config, role: Role) -> set[str]:
    return {item.dataset for item in roles.holders(config.search, role).values()}


def before_benchmarks(config: Config) -> list[str]:
    """Experiments that the sandbox's criteria read: on the development split and on harmless prompts, none on a benchmark."""
    early = _datasets(config, "development") | _datasets(config, "benign")
    return [name for name, item in config.search.experiments.items() if item.dataset in early]


def run_of(config: Config, experiment: str, key: str) -> Run:
    """The run of an experiment with this key."""
    return next(run for run in config.search.experiments[experiment].runs if run.key == key)


def run_order(config: Config, experiment: str) -> list[str]:
    """Keys of an experiment's runs, the one whose compute the others are matched to first."""
    item = config.search.experiments[experiment]
    return [run.key for run in sorted(item.runs, key=lambda run: run != item.reference)]


def group_runs(config: Config, group: str) -> list[tuple[str, str]]:
    """Experiment and key of every run of a group, in an order in which they can run."""
    return [(name, key) for name in experiments(config, group) for key in run_order(config, name)]


def references(config: Config, experiment: str, key: str) -> list[str]:
    """Keys of the runs that must be finished before this one: the run whose compute it is matched to."""
    reference = config.search.experiments[experiment].reference
    return [] if reference is None or key == reference.key else [reference.key]


def search_parts(config: Config, group: str) -> dict[str, list[tuple[str, str]]]:
    """The runs of an experiment group, as experiment and key, by the job that searches them with ``search.jobs: models``.

    A job takes the runs that load the same models, so that each is loaded once, by a process that waits for no other
    model; runs that wait for the one they are matched to are a job of their own, and so are those that the criteria read,
    which come before any benchmark. Jobs are named after what they load.
    """
    early = before_benchmarks(config)
    parts: dict[str, list[tuple[str, str]]] = {}
    for name, key in group_runs(config, group):
        run = run_of(config, name, key)
        part = "matched" if references(config, name, key) else "-".join((run.policy, *mrms_of(config, run)))
        part = f"early-{part}" if name in early else part
        parts.setdefault(part, []).append((name, key))
    return parts


def match_rule(config: Config) -> Match:
    """The rule of Table 2: that of the config's experiment with the role `matched`, or the paper's."""
    name = roles.holder(config.search, "matched")
    found = config.search.experiments[name].match if name is not None else None
    return found or Match.model_validate({})


def gathering_searches(config: Config, experiment: str) -> bool:
    """Whether joining an experiment may search: matched by compute over several shards, a budget is known only then."""
    return (
        experiment in config.search.experiments
        and config.search.experiments[experiment].match is not None
        and config.search.shards > 1
    )


def mrms_of(config: Config, run: Run) -> list[str]:
    """Names of the MRM variants that a run loads: none, one, or those of an ensemble."""
    return method(run.method).mrms(config.search.settings_of(run))


def variants(config: Config, group: str | None = "replicate") -> list[str]:
    """MRM variants that the experiments of a group need (None: all that are defined); always ``default``."""
    if group is None:
        return sorted(config.mrm.variants)
    used = {name for item in experiments(config, group).values() for run in item.runs for name in mrms_of(config, run)}
    return sorted({"default", *used})


def models_of(config: Config, run: Run) -> list[str]:
    """Models that a run loads, by folder name, without its MRMs (:func:`mrms_of`)."""
    reads = method(run.method).reads(config.search.settings_of(run))
    return [run.policy, *(["guard"] if "guard" in reads else [])]


def models_labelling(config: Config) -> list[str]:
    """Models that the labels of Safety4M come from, by folder name: the guard, and the policy if it rewrites answers."""
    return ["guard", *(["policy"] if config.safety4m.on_policy_share > 0 else [])]


# -------------------------------------------------------------------------------------------------------------- judges
def judges(config: Config) -> list[Judge]:
    """Judges that stand in every table, the one that decides attack success first."""
    return [judge for judge in config.judges if judge.experiments is None]


def judge_of(config: Config, name: str) -> Judge:
    """A judge by its name.

    Raises:
        ConfigError: if there is none of that name.
    """
    found = {judge.name: judge for judge in config.judges}
    if name not in found:
        raise ConfigError(f"judges: no judge {name}; there are {', '.join(found)}")
    return found[name]


def judges_apart(config: Config) -> list[Judge]:
    """Judges and measurements of some experiments alone, which `make ablations` adds."""
    return [judge for judge in config.judges if judge.experiments is not None]


def read_apart(config: Config, experiment: str | None, *, measure: bool = False) -> list[str]:
    """Judges (or measurements, with ``measure``) that read some experiments alone, this one among them."""
    return [
        judge.name
        for judge in judges_apart(config)
        if experiment in (judge.experiments or ()) and kind(judge.kind).measures == measure
    ]


#: The job of a judge of some experiments alone.
APART = "apart"


def judging_parts(config: Config, name: str | None = None) -> dict[str, list[str]]:
    """Experiments that a judge reads (None: one that stands in every table), by the job in which it does.

    A group is a job, since starting a process costs more than reading most tables; what the criteria read is one of its own
    where it can be, as it comes before any benchmark.
    """
    if name is not None and (chosen := judge_of(config, name).experiments) is not None:
        return {APART: chosen}
    early = [] if config.search.jobs == "seeds" else before_benchmarks(config)
    parts: dict[str, list[str]] = {}
    for name, item in config.search.experiments.items():
        parts.setdefault(f"early_{item.group}" if name in early else item.group, []).append(name)
    return parts


def models_judging(config: Config, name: str) -> list[str]:
    """Models that a judge loads, by folder name; the tokenizer among them if it loads any."""
    judge = judge_of(config, name)
    found, settings = kind(judge.kind), judge.settings_of_kind
    return ["tokenizer", *sorted(found.reads(settings))] if found.computes(settings) else []


def judge_that(config: Config, wanted: Callable[[Kind], bool]) -> str | None:
    """The first judge of every table whose kind is so, None if there is none."""
    return next((judge.name for judge in judges(config) if wanted(kind(judge.kind))), None)


def guard_judge(config: Config) -> str | None:
    """The judge of every table whose score is the R of the config's guard, as searches read it; None if there is none."""
    return next(
        (
            judge.name
            for judge in judges(config)
            if kind(judge.kind).rewards and "guard" in kind(judge.kind).reads(judge.settings_of_kind)
        ),
        None,
    )
