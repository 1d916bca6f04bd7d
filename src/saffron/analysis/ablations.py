"""Ablations: runs that differ in one setting, compared on the same prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from saffron.analysis.results import Key
from saffron.analysis.study import METHODS, OUTCOMES, Study
from saffron.config import Config
from saffron.records import RecordError


def names(config: Config) -> list[str]:
    """Experiments of the group ``ablations``."""
    return [name for name, experiment in config.search.experiments.items() if experiment.group == "ablations"]


def reference(config: Config, name: str) -> str:
    """The run that an ablation's others are compared with."""
    return config.search.experiments[name].runs[0].settings_id


def rows(study: Study, name: str) -> list[dict[str, Any]]:
    """One row per cell of an ablation, with its paired difference to the first run of its method at the same budget.

    Raises:
        RecordError: if the ablation's results are missing or incomplete.
    """
    results = study.results(name)
    boot = study.bootstrap(results.cells())
    index = {key: i for i, key in enumerate(boot.cells.keys)}
    runs = study.config.search.experiments[name].runs
    first = {run.method: run.settings_id for run in reversed(runs)}
    found = []
    for run in runs:
        for budget in results.budgets(run.method, run.settings_id):
            i = index[Key(run.method, run.settings_id, budget)]
            base = index.get(Key(run.method, first[run.method], budget))
            row: dict[str, Any] = {
                "method": run.method,
                "settings_id": run.settings_id,
                "budget": budget,
                "n": boot.cells.shape[1],
            }
            for outcome in ("flops", "flops_paper", "reward_calls", "n_new_tokens", "finished"):
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
    if not study.has(name):
        return f"not measured: this config has no experiment {name}"
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


def benign_rows(study: Study, refuses: Callable[[str], bool]) -> list[dict[str, Any]]:
    """One row per run on harmless prompts: refusals, as ``refuses`` reads the text, and outputs that the guard calls unsafe.

    Raises:
        RecordError: if the results are missing or incomplete.
    """
    results = study.results("benign")
    refused = results.frame.assign(oracle_asr=results.frame["text"].map(refuses).astype(float))
    results = replace(results, frame=refused)
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
        found.append(row | {"refused": boot.rate("oracle_asr", i).as_record(), "judged_unsafe": boot.rate("asr", i).as_record()})
    return sorted(found, key=lambda row: METHODS.index(row["method"]))
