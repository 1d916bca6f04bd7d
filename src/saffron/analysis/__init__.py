"""Analysis: attack success, scaling, matched budgets, and every claim's verdict, from the stored results."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saffron import records, workflow
from saffron.analysis import ablations, claims, paper
from saffron.analysis.matching import FLOPS
from saffron.analysis.statistics import Estimate
from saffron.analysis.study import PROPOSED, Study, proposition1_quantities, quantities, safety4m_quantities
from saffron.config import Config
from saffron.layout import Layout
from saffron.methods.discovery import ordered
from saffron.models.shapes import shape_of
from saffron.roles import Role

__all__ = ["ANALYSIS", "CELLS", "CLAIMS", "CLAIMS_TABLE", "inputs", "run"]

#: Roles whose prompts are the two benchmarks of Table 2.
BENCHMARKS: tuple[Role, ...] = ("scaling", "matched")

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


def sections(study: Study) -> dict[str, Any]:
    """Everything the notebooks and the report show, section by section; only what the config's experiments give."""
    record: dict[str, Any] = {
        "config": study.config.name,
        "train_seeds": list(study.config.train_seeds),
        "search_seeds": list(study.config.search.seeds),
        "judges": list(study.judges),
        "paper_models": claims.has_paper_models(study.config),
        "mrm": {name: estimate.as_record() for name, estimate in study.mrm_estimates.items()},
        "persistence": {name: estimate.as_record() for name, estimate in study.persistence().items()},
    }
    if study.has("development"):
        record["gates"] = study.gates()
    if study.has("scaling"):
        methods = ordered(study.of("scaling").methods())
        record["curves"] = {judge: {method: study.curve(method, judge) for method in methods} for judge in study.judges}
        record["fits"] = study.fits()
        record["bands"] = {judge: study.bands(judge) for judge in study.judges}
        if PROPOSED in methods:
            record["mrm_in_search"] = study.mrm_in_search()
        if PROPOSED in methods and study.match_rule().method in methods:
            record["equal_asr"] = {
                judge: {convention: study.equal_asr(judge, convention) for convention in FLOPS} for judge in study.judges
            }
    record["matched"] = {
        name: {convention: study.matched_table(name, convention) for convention in FLOPS}
        for name in BENCHMARKS
        if study.has(name)
    }
    if study.has("exploration"):
        record["exploration"] = study.exploration()
    if study.has("section56") and study.has("scaling"):
        record["quality"] = study.quality()
    shape = shape_of(study.config, study.layout, "policy")
    record["tries"] = {
        str(seed): [
            {"prompt_id": s.prompt_id, "method": s.method, "budget": s.budget, "recorded_tokens": s.size, **asdict(s.cost())}
            | dict(zip(("flops", "flops_unshared"), s.flops(shape), strict=True))
            for s in recorded.searches
        ]
        for seed, recorded in study.recorded.items()
    }
    return record


def all_quantities(study: Study) -> dict[str, Estimate]:
    """Every quantity of the claims, attack success by the judge that decides it."""
    config, layout = study.config, study.layout
    found = quantities(study)
    found |= safety4m_quantities({seed: count_rewards(layout, seed) for seed in config.train_seeds})
    if config.mrm.origin == "train":
        found |= proposition1_quantities({seed: largest_unseen_bias(layout, seed) for seed in config.train_seeds})
    return found


def inputs(config: Config, layout: Layout) -> list[Path]:
    """Files that the analysis reads, except models and reference data."""
    experiments, seeds, judges = workflow.experiments(config), config.train_seeds, workflow.judges(config)
    found = [layout.search(seed, name) for name in experiments for seed in seeds]
    found += [layout.judgements(seed, judge.name, name) for judge in judges for name in experiments for seed in seeds]
    found += [layout.mrm(seed) / "evaluation.parquet" for seed in config.train_seeds]
    return found + [layout.search_trees(seed) for seed in config.train_seeds]


def run(config: Config, layout: Layout) -> None:
    """Analyse the stored results of a config and write ``layout.analysis``.

    Raises:
        RecordError: if a result is missing, incomplete or not finite; names file, column and cause.
    """
    study = Study(config, layout)
    cells = pd.concat([study.cells(name) for name in workflow.experiments(config)], ignore_index=True)
    ours = all_quantities(study)
    if study.has("benign"):
        ours |= ablations.refusal_quantities(study)
    others = {judge: quantities(study, judge) for judge in study.judges[1:]}
    verdicts = claims.judge_all(paper.claims(), ours, others, config)
    folder = layout.analysis
    with records.replacing(folder / CELLS) as temporary:
        cells.to_parquet(temporary, index=False, compression="zstd")
    record = sections(study)
    record["inputs"] = {str(path.relative_to(layout.root)): records.sha256(path) for path in inputs(config, layout)}
    record["quantities"] = {name: estimate.as_record() for name, estimate in ours.items()}
    record["quantities_by"] = {
        judge: {name: estimate.as_record() for name, estimate in theirs.items()} for judge, theirs in others.items()
    }
    records.write_json(folder / ANALYSIS, record)
    records.write_json(folder / CLAIMS, verdicts)
    with records.replacing(folder / CLAIMS_TABLE) as temporary:
        temporary.write_text(claims.markdown(verdicts))
