"""What the Snakemake rules ask of a config: which jobs there are and what they need. What each one reads: :mod:`saffron.jobs`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from saffron.config import Config, ConfigError, Experiment, Group, Run
from saffron.layout import Layout
from saffron.methods.discovery import method

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
    """Names of the prompt sets that the sources write; the first is the benchmark of the scaling figures."""
    return (
        ["guild_a", "guild_b", "development", "benign"]
        if config.sources.origin == "sandbox"
        else ["harmful_hexphi", "ai2_refusals"]
    )


def require_prompt_sets(config: Config, layout: Layout) -> None:
    """Refuse an experiment whose prompt set neither the sources write nor lies where a set of one's own is put.

    Raises:
        ConfigError: naming the key, the known sets and that place.
    """
    known = prompt_sets(config)
    for name, item in config.search.experiments.items():
        path = layout.prompts(item.dataset)
        if item.dataset not in known and not path.exists():
            raise ConfigError(
                f"search.experiments.{name}.dataset: no prompt set {item.dataset}; the sources write {', '.join(known)}, and "
                f"a set of your own is read from {path} (its columns: docs/bring-your-own.md)"
            )


def corpora(config: Config, layout: Layout) -> list[Path]:
    """What models are trained on from scratch: the sandbox's corpus, nothing for models from the hub."""
    return [layout.corpus] if config.sources.origin == "sandbox" else []


def model_names(config: Config) -> list[str]:
    """Models that the replication needs, by folder name."""
    policies = {run.policy for item in experiments(config).values() for run in item.runs}
    return sorted({"policy", "guard", *policies})


def experiments(config: Config, group: str | None = "replicate") -> dict[str, Experiment]:
    """Experiments of one target group (None: all), by name."""
    return {name: item for name, item in config.search.experiments.items() if group in (None, item.group)}


def on_development(config: Config) -> dict[str, Experiment]:
    """Experiments on the development split, on which every knob is fixed, by name."""
    return {name: item for name, item in config.search.experiments.items() if item.dataset == "development"}


def before_benchmarks(config: Config) -> list[str]:
    """Experiments that the sandbox's criteria read: on the development split and on harmless prompts, none on a benchmark."""
    return [name for name, item in config.search.experiments.items() if item.dataset in ("development", "benign")]


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
        part = "matched" if references(config, name, key) else "-".join(filter(None, (run.policy, mrm_of(config, run))))
        part = f"early-{part}" if name in early else part
        parts.setdefault(part, []).append((name, key))
    return parts


def gathering_searches(config: Config, experiment: str) -> bool:
    """Whether joining an experiment may search: matched by compute over several shards, a budget is known only then."""
    return (
        experiment in config.search.experiments
        and config.search.experiments[experiment].match is not None
        and config.search.shards > 1
    )


def mrm_of(config: Config, run: Run) -> str | None:
    """Name of the MRM variant that a run loads, if it loads one."""
    return method(run.method).mrm(config.search.settings_of(run))


def variants(config: Config, group: str | None = "replicate") -> list[str]:
    """MRM variants that the experiments of a group need (None: all that are defined); always ``default``."""
    if group is None:
        return sorted(config.mrm.variants)
    used = {mrm_of(config, run) for item in experiments(config, group).values() for run in item.runs}
    return sorted({"default", *(name for name in used if name)})


def assessed(config: Config) -> list[str]:
    """Experiments whose outputs are assessed with the ablations."""
    return [name for name, item in config.search.experiments.items() if item.assess]


def beyond_replication(config: Config, job: str) -> bool:
    """Whether a job, named as its log, is one of `make ablations` or `make criteria` rather than of `make replicate`."""
    from saffron.figures import discovery

    first, *parts = job.split(".")
    others = {name for name, item in config.search.experiments.items() if item.group != "replicate"}
    others |= set(variants(config, None)) - set(variants(config))
    if first in [f"search_{group}" for group in GROUPS]:
        return first != "search_replicate"
    return (
        first in ("assess", "judge", "compare_on_outputs", "criteria")
        or first in discovery.pages(config, "ablations")
        or bool(others & set(parts))
    )


def has_judge(config: Config) -> bool:
    """Whether there is an independent judge: always in the sandbox, from the hub if one is named."""
    return config.models.origin == "sandbox" or (config.models.hub is not None and config.models.hub.judge is not None)
