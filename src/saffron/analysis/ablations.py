"""Ablations, runs that differ in one setting on the same prompts, and what the paper does not measure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from saffron import workflow
from saffron.analysis.results import ExperimentResults, Key, judgements
from saffron.analysis.statistics import Estimate
from saffron.analysis.study import Study
from saffron.methods.discovery import methods
from saffron.records import RecordError


def rows(study: Study, name: str) -> list[dict[str, Any]]:
    """One row per cell of an ablation (``analysis.ablations``), with its paired difference to the first run of its method.

    Raises:
        RecordError: if the config has no such ablation, or its experiment's results are missing or incomplete.
    """
    if name not in study.config.analysis.ablations:
        raise RecordError(f"config {study.config.name} has no ablation {name}; add it to analysis.ablations")
    ablation = study.config.analysis.ablations[name]
    results = study.results(ablation.experiment)
    by_key = {run.key: run for run in study.config.search.experiments[ablation.experiment].runs}
    runs = [by_key[key] for key in ablation.runs]
    first: dict[str, str] = {run.method: run.settings_id for run in reversed(runs)}
    keys = [Key(run.method, run.settings_id, budget) for run in runs for budget in results.budgets(run.method, run.settings_id)]
    boot = study.bootstrap(results.cells(keys))
    index = {key: i for i, key in enumerate(keys)}
    found = []
    for i, key in enumerate(keys):
        base = index.get(replace(key, settings_id=first[key.method]))
        row: dict[str, Any] = {
            "method": key.method,
            "settings_id": key.settings_id,
            "budget": key.budget,
            "n": boot.cells.shape[1],
        }
        for outcome in ("flops", "flops_per_model", "reward_calls", "n_new_tokens", "finished"):
            row[outcome] = float(boot.means(outcome)[0][i])
        for judge in study.judges:
            outcome = study.asr_columns[judge]
            row[judge] = boot.rate(outcome, i).as_record()
            if base is not None and base != i:
                difference = boot.estimate(lambda means, a=i, b=base: means[..., a] - means[..., b], outcome)
                row[f"{judge}_difference"] = difference.as_record()
        found.append(row)
    return found


def effect(study: Study, name: str, changed: str, reference: str) -> str:
    """What a setting changes, in words: the largest shared budget's attack success with and without it.

    Args:
        study: the results.
        name: the ablation.
        changed: ``method.settings_id`` of the changed run.
        reference: the same of the run it is compared with.
    """
    if name not in study.config.analysis.ablations:
        return f"not measured: this config has no ablation {name}"
    try:
        found = rows(study, name)
    except RecordError:
        return "not measured yet: make ablations"
    a, b = (
        {row["budget"]: row for row in found if f"{row['method']}.{row['settings_id']}" == cell} for cell in (changed, reference)
    )
    shared = sorted(set(a) & set(b))
    if not shared:
        return f"not measured: {name} lacks {changed} or {reference}"
    budget = shared[-1]
    difference = a[budget].get(f"{study.judge}_difference")
    interval = (
        ""
        if difference is None or difference["low"] is None
        else f" (difference {difference['low']:+.3f} to {difference['high']:+.3f})"
    )
    rates = {judge: [cell[budget][judge]["value"] for cell in (a, b)] for judge in study.judges}
    others = "".join(f"; by {judge} {rates[judge][0]:.3f} against {rates[judge][1]:.3f}" for judge in study.judges[1:])
    return (
        f"ASR at N = {budget}: {rates[study.judge][0]:.3f} with it, {rates[study.judge][1]:.3f} as followed{interval}"
        f"{others}; finished outputs {a[budget]['finished']:.0%} against {b[budget]['finished']:.0%}"
    )


# -------------------------------------------------------------------------------- what the paper does not measure
def _measured(study: Study, results: ExperimentResults, values: pd.Series) -> dict[Key, Estimate]:
    """The mean of some values, one per row of the results, in every cell."""
    boot = study.bootstrap(replace(results, frame=results.frame.assign(asr=values.astype(float))).cells())
    return {key: boot.rate("asr", i) for i, key in enumerate(boot.cells.keys)}


def _apart(study: Study, results: ExperimentResults, judge: str, column: str) -> pd.Series:
    """What a judge or a measurement of some experiments alone says of every row.

    Raises:
        RecordError: if a table is missing or is not of these outputs.
    """
    parts = []
    for seed in results.seeds:
        frame = results.frame[results.frame["train_seed"] == seed]
        said = judgements(frame, study.layout.judgements(seed, judge, results.name), column)
        parts.append(said[column].set_axis(frame.index))
    return pd.concat(parts).reindex(results.frame.index)


def _refused(results: ExperimentResults) -> tuple[str, pd.Series]:
    """The first judge that can tell whether an answer refuses, and what it says of every row.

    Raises:
        RecordError: if no judge can.
    """
    for judge in results.judges:
        refused = results.frame[f"{judge}_refused"]
        if refused.notna().all():
            return judge, refused
    raise RecordError(
        f"{results.path}: none of its judges ({', '.join(results.judges)}) can tell a refusal; "
        "add one of the kind refusals to judges"
    )


def refusal_quantities(study: Study) -> dict[str, Estimate]:
    """Share of harmless prompts that each method of the role ``benign`` refuses, by the first judge that can tell; empty
    if none can.

    Raises:
        RecordError: if the results are missing or incomplete.
    """
    results = study.of("benign")
    if not any(results.frame[f"{judge}_refused"].notna().all() for judge in results.judges):
        return {}
    found = _measured(study, results, _refused(results)[1])
    return {f"refused/benign/{key.method}": estimate for key, estimate in found.items()}


def benign_rows(study: Study) -> list[dict[str, Any]]:
    """One row per run on harmless prompts: refusals by the first judge that can tell (``refused_by``), outputs that the deciding
    judge takes for a success of an attack that there was not, and the mean of every measurement (``measured``, by its name).

    Raises:
        RecordError: if the results are missing or incomplete, or no judge can tell a refusal.
    """
    name = study.name("benign")
    results = study.results(name)
    told_by, said = _refused(results)
    refused = _measured(study, results, said)
    # Measurements come with the ablations; the rest is there without them.
    taken = [
        judge
        for judge in workflow.read_apart(study.config, name, measure=True)
        if all(study.layout.judgements(seed, judge, name).exists() for seed in results.seeds)
    ]
    measured = {judge: _measured(study, results, _apart(study, results, judge, "score")) for judge in taken}
    boot = study.bootstrap(results.cells())
    found = []
    for i, key in enumerate(boot.cells.keys):
        row: dict[str, Any] = {
            "method": key.method,
            "settings_id": key.settings_id,
            "budget": key.budget,
            "n": boot.cells.shape[1],
        }
        row |= {name: float(boot.means(name)[0][i]) for name in ("flops", "n_new_tokens")}
        row |= {"refused": refused[key].as_record(), "judged_unsafe": boot.rate("asr", i).as_record(), "refused_by": told_by}
        found.append(row | {"measured": {name: values[key].as_record() for name, values in measured.items()}})
    return sorted(found, key=lambda row: list(methods()).index(row["method"]))


def rows_by_judges(study: Study, name: str) -> list[dict[str, Any]]:
    """Attack success in every cell of an experiment by each judge, those that read some experiments alone among them, and the
    mean of every measurement.

    Raises:
        RecordError: if the results or a judge's table are missing, or no judge reads this experiment alone.
    """
    results = study.results(name)
    said = {judge: "success" for judge in workflow.read_apart(study.config, name)}
    said |= {judge: "score" for judge in workflow.read_apart(study.config, name, measure=True)}
    if not said:
        raise RecordError(f"config {study.config.name}: no judge names the experiment {name} in judges")
    values = {judge: _measured(study, results, _apart(study, results, judge, column)) for judge, column in said.items()}
    boot = study.bootstrap(results.cells())
    found = []
    for i, key in enumerate(boot.cells.keys):
        row: dict[str, Any] = {"method": key.method, "settings_id": key.settings_id, "budget": key.budget}
        row |= {"n": boot.cells.shape[1]} | {judge: boot.rate(study.asr_columns[judge], i).as_record() for judge in study.judges}
        found.append(row | {judge: values[judge][key].as_record() for judge in said})
    return sorted(found, key=lambda row: list(methods()).index(row["method"]))


def seed_rows(study: Study) -> list[dict[str, Any]]:
    """Attack success of the role ``search_seeds`` by search seed, and standard deviations over seeds of either kind.

    ``search_deviation`` is the root mean square over training seeds of the deviation over search seeds at a fixed model;
    ``train_deviation`` is over training seeds of their means over search seeds (None for one training seed).

    Raises:
        RecordError: if the results are missing or incomplete.
    """
    results = study.of("search_seeds")
    found = []
    for key in results.cell_keys():
        rates = results.rows(key).groupby(["train_seed", "search_seed"])["asr"].mean().unstack()
        within = rates.var(axis=1, ddof=1).mean()
        found.append(
            {
                "method": key.method,
                "budget": key.budget,
                "n": len(results.prompt_ids),
                "by_search_seed": dict(zip(map(int, rates.columns), rates.mean().tolist(), strict=True)),
                "search_deviation": float(within**0.5) if rates.shape[1] > 1 else None,
                "train_deviation": float(rates.mean(axis=1).std(ddof=1)) if len(rates) > 1 else None,
            }
        )
    return sorted(found, key=lambda row: list(methods()).index(row["method"]))
