"""What the searches of the first benchmark maximise, and what comes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from saffron import workflow
from saffron.analysis import quality
from saffron.analysis.results import ExperimentResults, Key
from saffron.analysis.sections.base import Section
from saffron.analysis.statistics import Cells
from saffron.analysis.study import Study
from saffron.judges.discovery import kind
from saffron.methods.discovery import ordered


def section(study: Study) -> Section:
    """Rewards, attack success by every judge and repetition against the budget."""
    return Section({"overoptimisation": rows(study)} if study.has("scaling") else {})


def rows(study: Study) -> list[dict[str, Any]]:
    """One row per method and budget.

    Of each: ``mrm``, the mean reward by the MRM of what it chose (None of a method that reads none); ``rewards``, R of the
    outputs by every judge that is a guard; ``asr`` by every judge; and ``repeats``, the share of outputs that repeat
    themselves (:func:`saffron.analysis.quality.repeats`).
    """
    results = study.of("scaling")
    runs = [run for run in study.config.search.experiments[results.name].runs if run.settings_id == "default"]
    by_mrm = {run.method for run in runs if workflow.mrms_of(study.config, run)}
    guards = [judge.name for judge in workflow.judges(study.config) if kind(judge.kind).rewards]
    found = []
    for method in ordered([run.method for run in runs]):
        for budget in results.budgets(method):
            cell = results.rows(Key(method, "default", budget))
            cell = cell.assign(repeats=[quality.repeats(quality.words(text)) for text in cell["text"]])
            found.append(
                {
                    "method": method,
                    "budget": budget,
                    "n": len(results.prompt_ids),
                    "mrm": _mean(study, results, cell, "reward") if method in by_mrm else None,
                    "rewards": {judge: _mean(study, results, cell, f"{judge}_score") for judge in guards},
                    "asr": {judge: _mean(study, results, cell, study.asr_columns[judge], rate=True) for judge in study.judges},
                    "repeats": _mean(study, results, cell, "repeats", rate=True),
                }
            )
    return found


def _mean(study: Study, results: ExperimentResults, cell: pd.DataFrame, column: str, *, rate: bool = False) -> dict[str, Any]:
    """Mean of a column over one cell's outputs, with its interval; undefined where an output has no value."""
    means = cell.groupby(["train_seed", "prompt_id"])[column].agg(lambda values: values.astype(float).mean(skipna=False))
    values = np.stack([means.loc[seed].to_numpy(dtype=float) for seed in results.seeds])
    boot = study.bootstrap(Cells((column,), {column: values[None]}))
    return (boot.rate(column, 0) if rate else boot.estimate(lambda mean: mean[..., 0], column)).as_record()
