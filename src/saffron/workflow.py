"""What the Snakemake rules ask of a config: which jobs there are, what each one reads, and which code it runs.

A rule's ``params`` hold exactly the part of the config that its stage reads (``*_slice`` below), as one line of JSON:
editing one key reruns what depends on it and nothing else. Its ``code`` inputs are the modules of its stage
(:func:`modules`), so that editing a stage reruns it too.
"""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, get_args

from saffron import config as configs
from saffron.config import Config, ConfigError, Experiment, Group, Run
from saffron.layout import Layout
from saffron.methods.discovery import method

#: Figures and tables, one notebook each, with the experiments that each shows.
FIGURES = {
    "figure1": (),
    "figure2": ("scaling",),
    "figure3": (),
    "figure4a": ("scaling",),
    "figure4b": (),
    "overoptimisation": ("scaling",),
}
TABLES = {
    "table1": ("exploration",),
    "table2": ("scaling", "matched"),
    "table3": ("scaling",),
    "section56": ("scaling", "deepalign"),
    "mrm_in_search": ("scaling",),
    "claims": (),
}

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

#: Modules whose effect a rule already sees otherwise: values in params, paths in outputs, the command line in the rule.
_SEEN_OTHERWISE = frozenset({"saffron", "saffron.cli", "saffron.config", "saffron.layout", "saffron.workflow"})


# --------------------------------------------------------------------------------------------------------------- code
def modules(*names: str, root: str = "src") -> list[str]:
    """Source files of some modules of this package and of everything of it that they import.

    Args:
        names: dotted names below ``saffron``, for instance ``search`` or ``mrm.train``; a package stands for all its modules.
        root: folder that holds the package, relative to the project root.

    Returns:
        Sorted paths. ``saffron.config`` and ``saffron.layout`` are left out: their effect shows in params and paths.

    Raises:
        FileNotFoundError: if a name is no module.
    """
    return _closure([path for name in names for path in _files(Path(root), f"saffron.{name}", whole=True)], Path(root))


def notebook_modules(notebook: str, root: str = "src") -> list[str]:
    """The same for what the code cells of a notebook import."""
    cells = [cell for cell in json.loads(Path(notebook).read_text())["cells"] if cell["cell_type"] == "code"]
    return _closure(_imported("\n".join("".join(cell["source"]) for cell in cells), Path(root)), Path(root))


def _closure(todo: list[Path], root: Path) -> list[str]:
    found: set[Path] = set()
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += _imports(path, root)
    return sorted(str(path) for path in found)


@cache
def _imports(path: Path, root: Path) -> tuple[Path, ...]:
    return tuple(_imported(path.read_text(), root))


def _imported(source: str, root: Path) -> list[Path]:
    """Files of this package that a source text imports, anywhere in it (heavy imports stand inside functions)."""
    files: list[Path] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "saffron" and name not in _SEEN_OTHERWISE:
                files += _files(root, name, whole=False)
    return files


def _files(root: Path, name: str, *, whole: bool) -> list[Path]:
    base = root.joinpath(*name.split("."))
    packages = [parent / "__init__.py" for parent in base.relative_to(root).parents if len(parent.parts) > 1]
    packages = [root / package for package in packages]  # run before the module itself; saffron's own holds the version only
    if base.is_dir():
        return [*packages, *(sorted(base.rglob("*.py")) if whole else [base / "__init__.py"])]
    module = base.with_suffix(".py")
    if module.exists():
        return [*packages, module]
    if whole:
        raise FileNotFoundError(f"{module}: no such module")
    return []  # a name imported from a module, not a module


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


def shown(config: Config, items: dict[str, tuple[str, ...]]) -> list[str]:
    """Those of FIGURES or TABLES whose experiments the config has."""
    return [name for name, needed in items.items() if config.search.experiments.keys() >= set(needed)]


def ablation_notebooks(config: Config) -> list[str]:
    """Ablations of the config that have a notebook (another one of your own is in the report alone)."""
    return [name for name in config.analysis.ablations if Path(f"notebooks/{name}.ipynb").exists()]


def assessed(config: Config) -> list[str]:
    """Experiments whose outputs are assessed with the ablations."""
    return [name for name, item in config.search.experiments.items() if item.assess]


def beyond_replication(config: Config, job: str) -> bool:
    """Whether a job, named as its log, is one of `make ablations` or `make criteria` rather than of `make replicate`."""
    first, *parts = job.split(".")
    others = {name for name, item in config.search.experiments.items() if item.group != "replicate"}
    others |= set(variants(config, None)) - set(variants(config))
    if first in [f"search_{group}" for group in GROUPS]:
        return first != "search_replicate"
    return (
        first in ("assess", "judge", "compare_on_outputs", "criteria")
        or first.startswith("ablation_")
        or bool(others & set(parts))
    )


def has_judge(config: Config) -> bool:
    """Whether there is an independent judge: always in the sandbox, from the hub if one is named."""
    return config.models.origin == "sandbox" or (config.models.hub is not None and config.models.hub.judge is not None)


def ablation_slice(config: Config, name: str) -> str:
    """What the notebook of an ablation reads."""
    return _line(ablation=configs.as_dict(config.analysis.ablations[name]), report=configs.as_dict(config.report))


# ------------------------------------------------------------------------------------------------------------- slices
def _line(**parts: Any) -> str:
    """One line of JSON; equal for equal values (a set or a changing order would rerun the rule forever)."""
    return json.dumps(parts, sort_keys=True)


def _runtime(config: Config) -> dict[str, Any]:
    return configs.as_dict(config.runtime)


def sources_slice(config: Config) -> str:
    """What the sources read: the section of their origin."""
    section = configs.as_dict(config.sources)
    return _line(origin=config.sources.origin, settings=section[config.sources.origin])


#: Keys of models.sandbox and models.hub that each model reads.
_MODEL_KEYS = {
    "tokenizer": ("vocab_size", "policy", "policy_format", "guard", "chat_formats"),
    "policy": ("policy", "policy_pretraining", "policy_safety"),
    "guard": ("guard", "guard_training", "guard_outcome_share"),
    "judge": ("judge", "guard", "guard_training", "guard_outcome_share"),
    "deepalign": ("deepalign_training",),
}


def models_slice(config: Config, which: str) -> str:
    """What ``tokenizer``, ``policy``, ``guard``, ``judge`` or ``deepalign`` reads of the models section."""
    section = configs.as_dict(config.models)[config.models.origin]
    keys = ("vocab_size", "guard_question") if which == "tokenizer" and config.models.origin == "sandbox" else _MODEL_KEYS[which]
    settings = {key: section[key] for key in keys if key in section}
    return _line(
        origin=config.models.origin, settings=settings, **({} if which == "tokenizer" else {"runtime": _runtime(config)})
    )


def safety4m_slice(config: Config) -> str:
    """What labelling reads."""
    return _line(safety4m=configs.as_dict(config.safety4m), runtime=_runtime(config))


def mrm_train_slice(config: Config, variant: str) -> str:
    """What the training of one MRM variant reads."""
    section = configs.as_dict(config.mrm)
    chosen = section.pop("variants")[variant]
    del section["evaluation_prefixes"]  # read by the evaluation
    return _line(mrm=section, variant=chosen, runtime=_runtime(config))


def mrm_evaluate_slice(config: Config) -> str:
    """What the evaluation of an MRM reads."""
    return _line(evaluation_prefixes=config.mrm.evaluation_prefixes, batch_size=config.mrm.batch_size, runtime=_runtime(config))


def _search_common(config: Config) -> dict[str, Any]:
    section = configs.as_dict(config.search)
    for key in ("methods", "experiments", "jobs", "seeds"):
        section.pop(key, None)
    return {"search": section, "runtime": _runtime(config)}


def _run_values(config: Config, run: Run) -> dict[str, Any]:
    variant = mrm_of(config, run)
    return {
        "run": configs.as_dict(run),
        "settings": configs.as_dict(config.search.settings_of(run)),
        "mrm": configs.as_dict(config.mrm.variants[variant]) if variant else None,
    }


def search_run_slice(config: Config, experiment: str, key: str) -> str:
    """What one run of an experiment reads."""
    item = config.search.experiments[experiment]
    values = configs.as_dict(item)
    scope = {name: values[name] for name in ("dataset", "prompts", "match")} | {"seeds": config.search.seeds_of(item)}
    return _line(**_search_common(config), **_run_values(config, run_of(config, experiment, key)), experiment=scope)


def searches_slice(config: Config, runs: list[tuple[str, str]]) -> str:
    """What several runs, given as experiment and key, read."""
    return _line(runs=[(name, key, search_run_slice(config, name, key)) for name, key in runs])


def search_group_slice(config: Config, group: str) -> str:
    """What all searches of an experiment group read."""
    return searches_slice(config, group_runs(config, group))


def search_gather_slice(config: Config, experiment: str) -> str:
    """What joining an experiment's runs reads: which there are."""
    item = config.search.experiments[experiment]
    runs = {run.key: run.budgets for run in item.runs}
    return _line(runs=runs, seeds=config.search.seeds_of(item), shards=config.search.shards)


def trees_slice(config: Config) -> str:
    """What recording whole searches reads."""
    return _line(
        **_search_common(config),
        seed=config.search.seeds[0],
        settings=configs.as_dict(config.search.defaults("saffron")),
        mrm=configs.as_dict(config.mrm.variants["default"]),
    )


def analysis_slice(config: Config) -> str:
    """What the statistics read."""
    section = configs.as_dict(config.analysis)
    del section["ablations"]  # read by their notebooks
    return _line(analysis=section, train_seeds=config.train_seeds, oracle=config.search.oracle)


def report_slice(config: Config) -> str:
    """What notebooks and report read."""
    return _line(report=configs.as_dict(config.report))


def published_records(root: Path = Path()) -> str:
    """Digest of our published records, which the report compares a run with.

    They are no inputs of its rule: Snakemake tells files of their size apart by time alone, and a fresh clone has a new one.
    """
    files = sorted((root / "data/reference/ours").glob("*.json"))
    return _line(**{path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files})


def whole_config(config: Config) -> str:
    """Everything, for the record of a finished run."""
    return _line(**configs.as_dict(config))
