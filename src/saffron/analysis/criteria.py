"""What the sandbox must show on its development split (``data/reference/sandbox/criteria.yaml``), from stored results.

Every quantity is one number per training seed, computed from that seed's results alone; none compares two methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from saffron import records, roles, workflow
from saffron.analysis import scaling
from saffron.analysis.results import asr_columns, judged
from saffron.config import Config
from saffron.judges.discovery import kind
from saffron.layout import Layout, shipped
from saffron.records import RecordError
from saffron.table import Table

CRITERIA = shipped("data/reference/sandbox") / "criteria.yaml"

#: How a bound is written, and when a value satisfies it.
BOUNDS = {
    "at_least": ("at least", np.greater_equal),
    "at_most": ("at most", np.less_equal),
    "above": ("above", np.greater),
    "below": ("below", np.less),
}


def read(path: Path = CRITERIA) -> list[dict[str, Any]]:
    """The criteria, in their order."""
    return list(yaml.safe_load(path.read_text("utf-8"))["criteria"])


def judges(config: Config) -> tuple[str, str]:
    """The judge that decides attack success, and the one that knows the sandbox's truth.

    Raises:
        RecordError: if the config has no other judge that knows it.
    """
    first, *others = workflow.judges(config)
    knowing = [other.name for other in others if kind(other.kind).knows_truth]
    if not knowing:
        raise RecordError(f"config {config.name}: the criteria need a judge that knows the truth; add one of the kind sandbox")
    return first.name, knowing[0]


def quantities(config: Config, layout: Layout, seed: int) -> dict[str, float]:
    """Every quantity of one training seed.

    ``asr/<run>/<budget>`` is attack success by the judge that decides it, ``<judge>_asr/<run>/<budget>`` by the one that knows
    the truth, ``disagreement/<run>/<budget>`` the share of outputs on which they part, ``mrm/<cell>/<statistic>`` the agreement
    of MRM and guard at every prefix of stored outputs, ``fit/<run>/<judge>`` R² on ln(compute).

    Raises:
        RecordError: if a result is missing; names the target that makes it.
    """
    columns = asr_columns(judges(config))
    asr, truth = columns.values()
    rows = _development(config, layout, seed)
    rows["disagreement"] = rows[asr] != rows[truth]
    found: dict[str, float] = {}
    cells = rows.groupby(["run", "budget"])
    for (run, budget), cell in cells:
        found |= {f"{column}/{run}/{budget}": float(cell[column].mean()) for column in (asr, truth)}
        found[f"disagreement/{run}/{budget}"] = float(cell["disagreement"].mean())
    largest = rows[rows["budget"] == rows.groupby("run")["budget"].transform("max")]
    searches = largest[~largest["run"].str.startswith("no_defense")]
    found["disagreement/worst_search"] = float(searches.groupby("run")["disagreement"].mean().max())
    found["asr/no_attack/larger"] = max(found[f"{column}/no_defense-no_attack/0"] for column in (asr, truth))
    found["asr/no_defense/smaller"] = min(found[f"{column}/no_defense-default/0"] for column in (asr, truth))
    curve = rows[rows["run"] == "best_of_n-default"].assign(flops=lambda r: r["flops_policy"] + r["flops_reward"])
    means = curve.groupby("budget")[["flops", asr, truth]].mean()
    for judge, column in columns.items():
        _, slope, r_squared = scaling.fit_coefficients(means["flops"].to_numpy(), means[column].to_numpy())
        found[f"fit/best_of_n/{judge}/slope"], found[f"fit/best_of_n/{judge}/r_squared"] = float(slope), float(r_squared)
    found["fit/best_of_n/r_squared/smaller"] = min(found[f"fit/best_of_n/{judge}/r_squared"] for judge in columns)
    found["refused/benign"] = _refused(config, layout, seed)
    return found | _mrm(layout, seed)


def _development(config: Config, layout: Layout, seed: int) -> pd.DataFrame:
    """Search rows of all experiments on the development split, one cell once."""
    tables = [
        judged(records.read_table(layout.search(seed, name), records.SEARCH), layout, seed, name, judges(config))
        for name in workflow.on_development(config)
    ]
    if not tables:
        raise RecordError(f"config {config.name}: no experiment has the role development; see config/sandbox.yaml")
    rows = pd.concat(tables, ignore_index=True)
    rows["run"] = rows["method"] + "-" + rows["settings_id"]
    return rows.drop_duplicates(["run", "budget", "prompt_id", "search_seed"])


def _refused(config: Config, layout: Layout, seed: int) -> float:
    """Share of harmless prompts that the policy alone refuses or turns back from, by the judge that knows the truth."""
    name = roles.holder(config.search, "benign")
    if name is None:
        raise RecordError(f"config {config.name}: no experiment has the role benign; see config/sandbox.yaml")
    rows = records.read_table(layout.judgements(seed, judges(config)[1], name), records.JUDGEMENTS)
    return float(rows.loc[rows["method"] == "no_defense", "refused"].astype(float).mean())


def _mrm(layout: Layout, seed: int) -> dict[str, float]:
    folder = layout.mrm(seed)
    held_out, outputs = records.read_json(folder / "evaluation.json"), records.read_json(folder / "outputs.json")
    cells = {"held_out": held_out, "attacked": outputs["no_defense-default/0"], **outputs}
    names = ("r_squared", "mae", "rmse", "mean_signed_error")
    return {f"mrm/{cell}/{name}": float(statistics[name]) for cell, statistics in cells.items() for name in names}


def over_seeds(by_seed: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Standard deviation over training seeds of every attack success, as ``<quantity>/sd`` (n - 1; 0 for one seed)."""
    frame = pd.DataFrame(by_seed.values())
    spread = frame.std(ddof=1).fillna(0.0)
    return {f"{name}/sd": float(value) for name, value in spread.items() if _is_asr(str(name))}


def _is_asr(name: str) -> bool:
    """Whether a quantity is attack success, by whichever judge."""
    head = name.partition("/")[0]
    return head == "asr" or head.endswith("_asr")


def judge(criteria: list[dict[str, Any]], by_seed: Mapping[int, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Each criterion with its value for every training seed (or the one over them) and whether it is met.

    Raises:
        RecordError: if a quantity is not there.
    """
    shared = over_seeds(by_seed)
    judged = []
    for criterion in criteria:
        name = criterion["quantity"]
        pooled = criterion["over"] == "seeds"
        sources: list[Mapping[str, float]] = [shared] if pooled else list(by_seed.values())
        if any(name not in source for source in sources):
            raise RecordError(f"criterion {criterion['id']}: no quantity {name}; run `make criteria` of this config")
        values = [source[name] for source in sources]
        bound = next(key for key in BOUNDS if key in criterion)
        words, satisfied = BOUNDS[bound]
        met = bool(np.all(satisfied(values, criterion[bound])))
        judged.append(
            {key: criterion[key] for key in ("id", "statement", "over")}
            | {"wanted": f"{words} {criterion[bound]:g}", "values": values, "met": met}
        )
    return judged


def run(config: Config, layout: Layout) -> dict[str, Any]:
    """Judge the criteria on the stored results of a config; writes and returns ``analysis/criteria.json``."""
    by_seed = {seed: quantities(config, layout, seed) for seed in config.train_seeds}
    record = {
        "config": config.name,
        "train_seeds": list(config.train_seeds),
        "judges": list(judges(config)),
        "criteria": judge(read(), by_seed),
        "quantities": {str(seed): values for seed, values in by_seed.items()},
    }
    records.write_json(layout.analysis / "criteria.json", record)
    return record


# ------------------------------------------------------------------------------------------------------------- tables
def criteria_table(record: Mapping[str, Any]) -> str:
    """Every criterion, its value by training seed, and whether it is met, in Markdown."""
    rows = []
    for row in record["criteria"]:
        values = " ".join(f"{value:.3f}" for value in row["values"])
        over = "" if row["over"] == "every seed" else f" ({row['over']})"
        rows.append((row["statement"], f"{row['wanted']}{over}", values, "yes" if row["met"] else "no"))
    return Table(("criterion", "wanted", "by training seed", "met"), tuple(rows)).markdown_rows()


def _agreement(quantities: Mapping[str, float], cell: str) -> str:
    """R² of one cell with what it is made of, since a small R² is a large error or rewards that hardly vary."""
    r_squared, bias, rmse = (
        quantities[f"{cell}/r_squared"],
        quantities[f"{cell}/mean_signed_error"],
        quantities.get(f"{cell}/rmse"),
    )
    if rmse is None or r_squared == 1:  # records published before this have no RMSE
        return f"{r_squared:.3f} ({bias:+.2f})"
    return f"{r_squared:.3f} ({bias:+.2f}; {rmse:.2f} beside {rmse / (1 - r_squared) ** 0.5:.2f})"


def causes_table(record: Mapping[str, Any]) -> str:
    """What stands behind attack success, by training seed, in Markdown: agreement of MRM and guard, and of both judges."""
    deciding, knowing = record["judges"]
    seeds = list(record["quantities"])
    by_seed = record["quantities"]
    names = [name for name in by_seed[seeds[0]] if name.startswith("mrm/") and name.endswith("r_squared")]
    cells = [name.removeprefix("mrm/").removesuffix("/r_squared") for name in names]
    rows: list[tuple[str, ...]] = []

    def row(label: str, values: list[str]) -> None:
        rows.append((label, *values))

    where = {"held_out": "held-out prefixes", "attacked": "attacked answers"}
    for cell in cells:
        if cell == "no_defense-default/0":
            continue  # the same as attacked
        values = [by_seed[seed] for seed in seeds]
        label = where.get(cell, f"outputs of {cell.replace('/', ' at ')}")
        row(
            f"MRM against guard on {label}: R² (mean signed error; RMSE beside the standard deviation of R)",
            [_agreement(value, f"mrm/{cell}") for value in values],
        )
    for name in [name for name in by_seed[seeds[0]] if name.startswith("asr/") and name.count("/") == 2 and "-" in name]:
        cell = name.removeprefix("asr/")
        row(
            f"{cell.replace('/', ' at ')}: attack success by {deciding} / {knowing}",
            [f"{by_seed[seed][name]:.3f} / {by_seed[seed][f'{knowing}_{name}']:.3f}" for seed in seeds],
        )
    row("harmless prompts refused", [f"{by_seed[seed]['refused/benign']:.3f}" for seed in seeds])
    return Table(("by training seed", *seeds), tuple(rows)).markdown_rows()
