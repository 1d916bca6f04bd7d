"""The stage: every part of the analysis and every claim's verdict, from the stored results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saffron import records, workflow
from saffron.analysis import ablations, claims, paper
from saffron.analysis.sections import exploration, gates, matched, mrm, overoptimisation, scaling, section56, trained, tries
from saffron.analysis.statistics import Estimate, exact
from saffron.analysis.study import Study
from saffron.config import Config
from saffron.layout import Layout

#: Files in ``layout.analysis``.
ANALYSIS, CELLS, CLAIMS, CLAIMS_TABLE = "analysis.json", "cells.parquet", "claims.json", "claims.md"


def count_rewards(layout: Layout, seed: int) -> int:
    """Token-level rewards in Safety4M.

    Raises:
        RecordError: if the labels are missing or not what they should be.
    """
    labels = records.read_table(layout.safety4m(seed) / "labels.parquet", records.SAFETY4M, ["rewards"])
    return int(labels["rewards"].map(len).sum())


def largest_unseen_bias(layout: Layout, seed: int) -> float:
    """Largest absolute lm_head bias of a token that was never a target (it starts at 0; Proposition 1).

    Raises:
        RecordError: if the MRM's head is missing, unreadable or lacks a tensor.
    """
    head = records.read_tensors(layout.mrm(seed) / "head.safetensors", ("lm_head_bias", "unseen_mask"), "numpy")
    return float(np.abs(head["lm_head_bias"][head["unseen_mask"].astype(bool)]).max(initial=0.0))


#: The parts, in the order in which ``analysis.json`` holds them.
SECTIONS = (mrm, gates, scaling, overoptimisation, matched, exploration, section56, trained, tries)


def sections(study: Study) -> tuple[dict[str, Any], dict[str, dict[str, Estimate]]]:
    """Everything the notebooks and the report show, and every quantity of the claims by judge; only what the config's experiments
    give."""
    record: dict[str, Any] = {
        "config": study.config.name,
        "train_seeds": list(study.config.train_seeds),
        "search_seeds": list(study.config.search.seeds),
        "judges": list(study.judges),
        "paper_models": claims.has_paper_models(study.config),
    }
    found: dict[str, dict[str, Estimate]] = {judge: {} for judge in study.judges}
    for part in SECTIONS:
        section = part.section(study)
        record |= section.record
        for judge, quantities in section.quantities.items():
            found[judge] |= quantities
    found[study.judge] |= _of_files(study.config, study.layout)
    if study.has("benign"):
        found[study.judge] |= ablations.refusal_quantities(study)
    return record, found


def _of_files(config: Config, layout: Layout) -> dict[str, Estimate]:
    """Quantities that need no search: the size of Safety4M, and what training left as it was (Proposition 1)."""
    counts = tuple(float(count_rewards(layout, seed)) for seed in config.train_seeds)
    found = {"safety4m/rewards": exact(float(np.mean(counts)), per_seed=counts)}
    if config.mrm.origin == "train":
        changes = tuple(largest_unseen_bias(layout, seed) for seed in config.train_seeds)
        found["proposition1/largest_unseen_bias_change"] = exact(max(changes), per_seed=changes)
    return found


def inputs(config: Config, layout: Layout) -> list[Path]:
    """Files that the analysis reads, except models and reference data."""
    experiments, seeds, judges = workflow.experiments(config), config.train_seeds, workflow.judges(config)
    found = [layout.search(seed, name) for name in experiments for seed in seeds]
    found += [layout.judgements(seed, judge.name, name) for judge in judges for name in experiments for seed in seeds]
    found += [
        layout.mrm(seed, variant) / "evaluation.parquet" for variant in workflow.variants(config) for seed in config.train_seeds
    ]
    found += [layout.held_out(which, seed) for which in workflow.trained_from_hub(config) for seed in config.train_seeds]
    return found + [layout.search_trees(seed) for seed in config.train_seeds]


def run(config: Config, layout: Layout) -> None:
    """Analyse the stored results of a config and write ``layout.analysis``.

    Raises:
        RecordError: if a result is missing, incomplete or not finite; names file, column and cause.
    """
    study = Study(config, layout)
    cells = pd.concat([study.cells(name) for name in workflow.experiments(config)], ignore_index=True)
    record, quantities = sections(study)
    ours, others = quantities[study.judge], {judge: quantities[judge] for judge in study.judges[1:]}
    verdicts = claims.judge_all(paper.claims(), ours, others, config)
    folder = layout.analysis
    with records.replacing(folder / CELLS) as temporary:
        cells.to_parquet(temporary, index=False, compression="zstd")
    record["inputs"] = {str(path.relative_to(layout.root)): records.sha256(path) for path in inputs(config, layout)}
    record["quantities"] = {name: estimate.as_record() for name, estimate in ours.items()}
    record["quantities_by"] = {
        judge: {name: estimate.as_record() for name, estimate in theirs.items()} for judge, theirs in others.items()
    }
    records.write_json(folder / ANALYSIS, record)
    records.write_json(folder / CLAIMS, verdicts)
    with records.replacing(folder / CLAIMS_TABLE) as temporary:
        temporary.write_text(claims.markdown(verdicts))
