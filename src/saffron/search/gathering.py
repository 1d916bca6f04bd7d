"""Joining the runs and shards of an experiment into one complete table; loads torch only if a matched budget is still open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from saffron import records
from saffron.config import as_dict
from saffron.jobs import GatherJob, SearchJob, beside
from saffron.layout import Layout
from saffron.search import experiments


def gather(job: GatherJob, layout: Layout) -> None:
    """Join all runs and shards of an experiment into ``layout.search``: by run, budget, search seed and prompt, complete.

    Raises:
        RecordError: if a shard is missing or of another job, a prompt is missing or there twice, or a value is not a number.
    """
    parts = []
    for place, entry in enumerate(job.runs):
        paths = [layout.search_run(entry.seed, entry.experiment, entry.run, shard) for shard in range(entry.shards)]
        _of_this_job(paths, entry)
        table = pd.concat([records.read_table(path, records.SEARCH) for path in paths], ignore_index=True)
        budgets = sorted({int(budget) for budget in table["budget"]})
        if entry.reference is None:
            budgets = entry.budgets
        elif entry.shards > 1:
            from saffron.search import runner  # loads torch

            table = runner.match_fully(entry, layout, max(budgets))
            budgets = [int(table["budget"].iloc[0])]
        elif len(budgets) != 1:
            raise records.RecordError(
                f"{paths[0]}: column budget: {budgets} in a matched run, expected one; delete it and run the search again"
            )
        prompt_ids = experiments.prompts(layout, entry)["prompt_id"].tolist()
        _check(table, paths, budgets, entry.search_seeds, prompt_ids)
        parts.append(table.assign(run=place))
    rows = pd.concat(parts, ignore_index=True).sort_values(experiments.ROW_ORDER, kind="stable")
    path = layout.search(job.seed, job.experiment)
    records.write_json(beside(path), as_dict(job))
    records.write_table(path, rows, records.SEARCH)


def forget(job: GatherJob, layout: Layout) -> None:
    """Delete the tables of runs that were joined, where no rule has them as its outputs.

    Snakemake would not know what they depend on, and a config that asks for them later (``search.jobs``) would take them as they
    are. The finished blocks stay, so that nothing is searched again.
    """
    for entry in job.runs:
        for shard in range(entry.shards):
            path = layout.search_run(entry.seed, entry.experiment, entry.run, shard)
            for one in (path, beside(path)):
                one.unlink(missing_ok=True)


def _of_this_job(paths: list[Path], entry: SearchJob) -> None:
    """Refuse the table of a run that was made with other settings, other code or another MRM."""
    wanted = as_dict(entry)
    for path in paths:
        found = records.read_json(beside(path)) if path.exists() else wanted
        if found != wanted:
            differing = sorted(key for key in wanted.keys() | found.keys() if found.get(key) != wanted.get(key))
            raise records.RecordError(
                f"{path}: was searched with other values of {', '.join(differing)}; delete it and run the search again "
                "(finished blocks that still hold are kept)"
            )


def _check(table: pd.DataFrame, paths: list[Path], budgets: list[int], search_seeds: list[int], prompt_ids: list[int]) -> None:
    where = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and its {len(paths) - 1} other shards"
    remedy = "delete it and run the search again"
    for column in ("flops_policy", "flops_reward"):
        bad = table[~np.isfinite(table[column].astype(float))]
        if len(bad):
            row = bad.iloc[0]
            raise records.RecordError(
                f"{where}: column {column}: not a number at prompt {row['prompt_id']}, budget {row['budget']}; {remedy}"
            )
    for budget in budgets:
        for search_seed in search_seeds:
            ids = table.loc[(table["budget"] == budget) & (table["search_seed"] == search_seed), "prompt_id"]
            cell = f"budget {budget}, search seed {search_seed}"
            missing = sorted(set(prompt_ids) - set(ids))
            if missing:
                raise records.RecordError(
                    f"{where}: column prompt_id: {len(missing)} prompts are missing at {cell}, first {missing[0]}; {remedy}"
                )
            if len(ids) != len(prompt_ids):
                raise records.RecordError(
                    f"{where}: column prompt_id: {len(ids)} rows for {len(prompt_ids)} prompts at {cell}; {remedy}"
                )
    expected = len(budgets) * len(search_seeds) * len(prompt_ids)
    if len(table) != expected:
        raise records.RecordError(f"{where}: column budget: {len(table)} rows, expected {expected}; {remedy}")
