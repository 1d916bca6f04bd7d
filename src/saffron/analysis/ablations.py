"""Ablations, runs that differ in one setting on the same prompts, and what the paper does not measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd

from saffron import records
from saffron.analysis.results import ExperimentResults, Key
from saffron.analysis.statistics import Estimate
from saffron.analysis.study import OUTCOMES, Study
from saffron.assessment import ASSESSMENT, OUTPUT
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
            outcome = OUTCOMES[judge]
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
    difference = a[budget].get("guard_difference")
    interval = (
        ""
        if difference is None or difference["low"] is None
        else f" (difference {difference['low']:+.3f} to {difference['high']:+.3f})"
    )
    oracle = (
        f"; by the oracle {a[budget]['oracle']['value']:.3f} against {b[budget]['oracle']['value']:.3f}"
        if "oracle" in study.judges
        else ""
    )
    return (
        f"ASR at N = {budget}: {a[budget]['guard']['value']:.3f} with it, {b[budget]['guard']['value']:.3f} as followed{interval}"
        f"{oracle}; finished outputs {a[budget]['finished']:.0%} against {b[budget]['finished']:.0%}"
    )


# -------------------------------------------------------------------------------- what the paper does not measure
def _assessed(study: Study, name: str) -> ExperimentResults:
    """An experiment's results with the columns of its assessment beside them.

    Raises:
        RecordError: if either table is missing or they do not belong together.
    """
    results = study.results(name)
    paths = [study.layout.assessment(seed, name) for seed in results.seeds]
    table = pd.concat([records.read_table(path, ASSESSMENT) for path in paths], ignore_index=True)
    joined = results.frame.merge(table, on=list(OUTPUT), how="left", validate="one_to_one")
    if joined["log_likelihood"].isna().any():
        raise RecordError(f"{paths[0]}: column log_likelihood: outputs without a value; run `snakemake ablations` again")
    return replace(results, frame=joined)


def _measured(study: Study, results: ExperimentResults, values: pd.Series) -> dict[Key, Estimate]:
    """The mean of some values, one per row of the results, in every cell."""
    boot = study.bootstrap(replace(results, frame=results.frame.assign(asr=values.astype(float))).cells())
    return {key: boot.rate("asr", i) for i, key in enumerate(boot.cells.keys)}


def refusal_quantities(study: Study, refuses: Callable[[str], bool]) -> dict[str, Estimate]:
    """Share of harmless prompts that each method of the role ``benign`` refuses, as ``refuses`` reads the text.

    Raises:
        RecordError: if the results are missing or incomplete.
    """
    results = study.of("benign")
    found = _measured(study, results, results.frame["text"].map(refuses))
    return {f"refused/benign/{key.method}": estimate for key, estimate in found.items()}


def benign_rows(study: Study, refuses: Callable[[str], bool]) -> list[dict[str, Any]]:
    """One row per run on harmless prompts: refusals, as ``refuses`` reads the text, outputs that the guard calls unsafe, and,
    where the experiment has been assessed, the mean log-likelihood per token of the outputs under the policy.

    Raises:
        RecordError: if the results are missing or incomplete.
    """
    # Likelihoods come with the ablations; the rest is there without them.
    name = study.name("benign")
    assessed = study.config.search.experiments[name].assess and all(
        study.layout.assessment(seed, name).exists() for seed in study.config.train_seeds
    )
    results = _assessed(study, name) if assessed else study.results(name)
    refused = _measured(study, results, results.frame["text"].map(refuses))
    likelihood = _measured(study, results, results.frame["log_likelihood"]) if assessed else None
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
        row |= {"refused": refused[key].as_record(), "judged_unsafe": boot.rate("asr", i).as_record()}
        found.append(row | {"log_likelihood": likelihood[key].as_record() if likelihood else None})
    return sorted(found, key=lambda row: list(methods()).index(row["method"]))


def independent_rows(study: Study, name: str) -> list[dict[str, Any]]:
    """Attack success in every cell of an assessed experiment by each judge, a judge that no search read among them.

    Raises:
        RecordError: if the results or their assessment are missing, or there is no independent judge.
    """
    results = _assessed(study, name)
    rewards = results.frame["independent_reward"]
    if rewards.isna().any():
        path = study.layout.assessment(results.seeds[0], name)
        raise RecordError(f"{path}: column independent_reward: empty; name a judge in models.hub.judge")
    independent = _measured(study, results, rewards < 0)
    boot = study.bootstrap(results.cells())
    found = []
    for i, key in enumerate(boot.cells.keys):
        row: dict[str, Any] = {"method": key.method, "settings_id": key.settings_id, "budget": key.budget}
        row |= {"n": boot.cells.shape[1], "independent": independent[key].as_record()}
        found.append(row | {judge: boot.rate(OUTCOMES[judge], i).as_record() for judge in study.judges})
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
