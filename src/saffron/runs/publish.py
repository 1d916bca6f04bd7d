"""Our published numbers: ``data/reference/ours/<config>.json`` from a finished run.

What was found on the sandbox's development split is published apart, in ``data/reference/sandbox/<config>.json``. Our pages are
made from these records alone (``saffron.pages``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from saffron import config as configs
from saffron import records
from saffron.analysis import comparison, paper
from saffron.analysis.view import View
from saffron.config import Config
from saffron.figures import discovery
from saffron.figures import published as published_tables
from saffron.layout import Layout
from saffron.runs import provenance
from saffron.table import Table

OURS = Path("data/reference/ours")
#: Ends of the names of records of redraws and of variants, and the keys that redraw a run: the MRM's, and the order of summation
#: in its labels. A variant changes anything but what is asked.
REDRAWS, VARIANTS, REDRAWN = "redraws", "variants", ("mrm.draw", "safety4m.batch_size")
DEVELOPMENT = Path("data/reference/sandbox")
BENCHMARKS = Path("benchmarks/results.md")


class PublishError(ValueError):
    """A run that cannot be published; says what to do."""


def publish(config: Config, layout: Layout) -> None:
    """Write the published record of a finished run.

    Raises:
        PublishError: if the run is of another config, is not finished, was changed since, or ran from uncommitted code.
    """
    records.write_json(layout.root / OURS / f"{config.name}.json", collect(config, layout))


def publish_criteria(layout: Layout, record: dict[str, Any]) -> None:
    """Publish what a config shows on the development split (``criteria.run``).

    Raises:
        PublishError: if the code was not committed.
    """
    git = _committed(layout.analysis / "criteria.json", provenance.git(), "run this again")
    records.write_json(layout.root / DEVELOPMENT / f"{layout.name}.json", record | {"git": git})


def publish_redraws(config: Config, layout: Layout, names: Sequence[str]) -> None:
    """Publish how far a run's headline numbers and verdicts move when its training seeds are kept and the MRM is another draw.

    Writes ``data/reference/ours/<config>-redraws.json`` (see :func:`_beside`).

    Args:
        config: of the run.
        layout: its own; redraws lie beside it.
        names: of the redraws' configs, which differ from ``config`` in ``REDRAWN`` alone.

    Raises:
        PublishError: if a redraw is of another config, redraws nothing, or the code was not committed.
        RecordError: if the analysis of one is missing or stale.
    """
    _beside(REDRAWS, config, layout, names, _redrawn)


def publish_variants(config: Config, layout: Layout, names: Sequence[str]) -> None:
    """Publish what becomes of a run's headline numbers and verdicts under other settings: ``<config>-variants.json``.

    Args:
        config: of the run; its prompts are those of every variant.
        layout: its own; variants lie beside it.
        names: of the variants' configs.

    Raises:
        PublishError: if a variant has other sources, or changes nothing, or the code was not committed.
        RecordError: if the analysis of one is missing or stale.
    """
    _beside(VARIANTS, config, layout, names, _varied)


def _beside(
    kind: str,
    config: Config,
    layout: Layout,
    names: Sequence[str],
    changes: Callable[[Config, Layout, Config, Layout], dict[str, Any]],
) -> None:
    """Write ``<config>-<kind>.json``, of the run and of each other one.

    Each with what it changes, its training seeds, its headline numbers by training seed and its verdicts of the paper's
    orderings; and the sections of the config that say which world they are of.
    """
    git = _committed(layout.data, provenance.git(), "run this again")
    draws = {config.name: _summary(config, layout, {})}
    for name in names:
        own = Layout(name, layout.root)
        other = configs.load(own.data / "config.yaml")
        draws[name] = _summary(other, own, changes(config, layout, other, own))
    settings = {key: configs.as_dict(config)[key] for key in ("sources", "models")}
    record = {"config": config.name, "train_seeds": config.train_seeds, "git": git, "settings": settings, "draws": draws}
    records.write_json(layout.root / OURS / f"{config.name}-{kind}.json", record)


def _summary(config: Config, layout: Layout, changed: dict[str, Any]) -> dict[str, Any]:
    view = View.of(config, layout)
    return {
        "changed": changed,
        "train_seeds": config.train_seeds,
        "values": comparison.headline_values(view.analysis),
        "verdicts": comparison.orderings(view.claims),
    }


def _changed(config: Config, other: Config) -> dict[str, Any]:
    """The keys of another run that differ from the run's, and their values; its name and training seeds are no such keys."""
    differing = comparison.changed(configs.as_dict(other), configs.as_dict(config))
    return {key: value for key, (value, _) in differing.items() if key not in ("name", "train_seeds")}


def _varied(config: Config, _: Layout, varied: Config, own: Layout) -> dict[str, Any]:
    """The keys of a variant that differ from the run's, and their values."""
    values = _changed(config, varied)
    if others := sorted(key for key in values if key.startswith("sources.")):
        raise PublishError(
            f"{own.data / 'config.yaml'}: differs in {', '.join(others)}; a variant of {config.name} is asked the same prompts"
        )
    if not values:
        raise PublishError(f"{own.data / 'config.yaml'}: differs in nothing, so no variant of {config.name}")
    return values


def _redrawn(config: Config, layout: Layout, redrawn: Config, own: Layout) -> dict[str, Any]:
    """The keys of a redraw that differ from the run's, and their values."""
    values = _changed(config, redrawn)
    others = sorted(values.keys() - REDRAWN)
    if others or not values:
        wrong = f"differs in {', '.join(others)}" if others else "differs in nothing"
        raise PublishError(f"{own.data / 'config.yaml'}: {wrong}; a redraw of {config.name} differs in {' or '.join(REDRAWN)}")
    for seed in redrawn.train_seeds:
        head = own.mrm(seed) / "head.safetensors"
        if records.sha256(head) == records.sha256(layout.mrm(seed) / "head.safetensors"):
            raise PublishError(f"{head}: the same MRM as that of {config.name}, so no other draw; change {values} further")
    return values


def beside_published(config: Config, analysis: Mapping[str, Any], root: Path = Path()) -> tuple[Table | None, list[str]]:
    """A run's headline numbers beside the published ones of the same sources and models, and what a reader must know.

    Args:
        config: of the run.
        analysis: its ``analysis.json``.
        root: folder that holds ``data/reference``.

    Returns:
        The table, None where nothing comparable is published; sentences.
    """
    ours = published(root)
    name = comparison.published_beside(config, ours)
    if name is None:
        missing = f"no record in {OURS.as_posix()} has the sources and models of the config {config.name}"
        return None, [f"Nothing published to compare with: {missing}."]
    rows = comparison.compare(analysis, ours[name])
    table = published_tables.beside_published(rows, ours[name], config.train_seeds)
    return table, comparison.notes(config, name, ours[name], rows)


def collect(config: Config, layout: Layout) -> dict[str, Any]:
    """What is published of a run: where it comes from, what it measured, the claims' verdicts, its tables and times."""
    run = _finished(config, layout)
    return {
        **{key: run[key] for key in ("config", "config_sha256", "seeds", "git", "hardware")},
        "versions": {name: run["versions"][name] for name in ("python", "torch", "transformers", "peft", "snakemake")},
        "runtimes": {
            key: value for key, value in provenance.runtimes(config, layout).items() if key not in ("config", "hardware")
        },
        "settings": configs.as_dict(config),
        "analysis": records.read_json(layout.analysis / "analysis.json"),
        "claims": records.read_json_list(layout.analysis / "claims.json"),
        "tables": {name: (layout.figures / f"{name}.md").read_text("utf-8") for name in table_names(config)}
        | _beyond_replication(config, layout),
    }


def table_names(config: Config) -> list[str]:
    """Tables of the replication that are published."""
    found = discovery.exhibits(config, "replicate")
    return [name for name, exhibit in found.items() if exhibit.table is not None and exhibit.published]


def _beyond_replication(config: Config, layout: Layout) -> dict[str, str]:
    """Tables of the ablations and of what the paper does not measure, those that are stored."""
    wanted = discovery.exhibits(config, "ablations").values()
    if not wanted:
        return {}
    view = View.of(config, layout)
    found = {}
    for exhibit in wanted:
        if exhibit.table is not None and exhibit.published:
            with suppress(records.RecordError):
                found[exhibit.name] = exhibit.table(view).markdown()
    return found


def _committed(path: Path, git: dict[str, Any], then: str) -> dict[str, Any]:
    """The record of the code if all of it was committed."""
    if git["commit"] is None:
        why = f" ({git['why']})" if "why" in git else ""
        raise PublishError(f"{path}: the code's commit is not known{why}; work in a clone of the repository, then {then}")
    if git["modified"]:
        raise PublishError(f"{path}: the code was not committed; commit it, then {then}")
    return git


def _finished(config: Config, layout: Layout) -> dict[str, Any]:
    run = records.read_json(layout.provenance, ("config_sha256", "git", "outputs"))
    again = f"run `make replicate CONFIG={config.name}` first"
    if run["config_sha256"] != provenance.config_sha256(config):
        raise PublishError(f"{layout.provenance}: of another config than the one given; {again}")
    _committed(layout.provenance, run["git"], f"delete this file and {again}")
    for name, output in run["outputs"].items():
        path = layout.root / name
        if not path.exists() or records.sha256(path) != output["sha256"]:
            raise PublishError(f"{path}: missing, or not what the run wrote; {again}")
    return run


def published(root: Path = Path()) -> dict[str, dict[str, Any]]:
    """Every published record, by config name, with redraws and variants of its world; the benchmark's searches are ``engine``,
    the paper's differences ``release``."""
    files = sorted((root / OURS).glob("*.json"))
    beside = {kind: [path for path in files if path.stem.endswith(f"-{kind}")] for kind in (REDRAWS, VARIANTS)}
    found = {path.stem: records.read_json(path) for path in files if not any(path in others for others in beside.values())}
    for kind, paths in beside.items():
        others = [records.read_json(path, ("settings",)) for path in paths]
        for record in found.values():
            of_it = [each for each in others if comparison.same_world(each["settings"], record.get("settings"))]
            record |= {kind: of_it[0]} if of_it else {}
    for path in sorted((root / DEVELOPMENT).glob("*.json")):
        found.setdefault(path.stem, {"tables": {}})["development"] = records.read_json(path)
    measured = root / BENCHMARKS
    if measured.exists():
        found["engine"] = {"tables": {"benchmark": "\n\n".join(measured.read_text("utf-8").split("\n\n")[:2])}}
    found["release"] = {"tables": {"differences": paper.differences_table()}}
    return found
