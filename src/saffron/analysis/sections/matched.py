"""Attack success at matched compute (Table 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from saffron.analysis import matching
from saffron.analysis.matching import FLOPS, Matched
from saffron.analysis.results import ExperimentResults
from saffron.analysis.sections.base import Section, difference
from saffron.analysis.statistics import Bootstrap, Estimate
from saffron.analysis.study import Study
from saffron.config import Convention
from saffron.methods.discovery import method as described
from saffron.methods.discovery import ordered
from saffron.roles import Role

Array = NDArray[np.float64]


#: Roles whose prompts are the two benchmarks of Table 2.
BENCHMARKS: tuple[Role, ...] = ("scaling", "matched")


def section(study: Study) -> Section:
    """Both columns of Table 2, compute counted in either convention."""
    present = [name for name in BENCHMARKS if study.has(name)]
    record = {name: {convention: table(study, name, convention) for convention in FLOPS} for name in present}
    found: dict[str, dict[str, Estimate]] = {judge: {} for judge in study.judges}
    for judge in study.judges:
        for name in present:
            found[judge] |= _matched_quantities(study, judge, name)
    return Section({"matched": record}, found)


def chosen_budgets(study: Study, role: Role, convention: Convention) -> tuple[ExperimentResults, dict[str, Matched]] | None:
    """Each method's matched budget on the benchmark of one role, or None where it was not run.

    On `scaling` budgets are chosen among those stored. An experiment with the role `matched` was run at the budgets matched
    with compute counted its way; a method whose multiplier is the reference's has the same budget under both.
    """
    rule = study.match_rule()
    if role == "scaling":
        results = study.of("scaling")
        if rule.budget not in results.budgets(rule.method):
            return None
        return results, matching.match(results, rule, convention)
    if not study.has("matched", convention):
        return None
    results = study.of("matched")
    if convention == "per_model":
        results = _joined(results, study.of("matched", convention))
    return results, matching.match(results, rule, convention)


def table(study: Study, role: Role, convention: Convention) -> list[dict[str, Any]]:
    """One column of Table 2: budget, compute ratio, ASR by each judge, and the paired difference to Best-of-N."""
    found = chosen_budgets(study, role, convention)
    if found is None:
        return []
    results, chosen = found
    boot, index = _bootstrap(study, results, chosen)
    reference = study.match_rule().method
    rows = []
    for method in ordered(list(chosen)):
        matched = chosen[method]
        row: dict[str, Any] = {
            "method": method,
            "budget": matched.label,
            "flops": float(boot.means("flops")[0][index[method]]),
            "flops_per_model": float(boot.means("flops_per_model")[0][index[method]]),
            "ratio": None if described(method).budget is None else float(np.mean(list(matched.ratios.values()))),
            "within_tolerance": matched.within,
            "n": boot.cells.shape[1],
        }
        for judge in study.judges:
            row[judge] = boot.rate(study.asr_columns[judge], index[method]).as_record()
            row[f"{judge}_difference"] = difference(boot, index[method], index[reference], study.asr_columns[judge]).as_record()
        rows.append(row)
    return rows


def _bootstrap(study: Study, results: ExperimentResults, chosen: dict[str, Matched]) -> tuple[Bootstrap, dict[str, int]]:
    methods = ordered(list(chosen))
    keys = [chosen[method].key for method in methods]
    budgets = {chosen[method].key: chosen[method].budgets for method in methods}
    return study.bootstrap(results.cells(keys, budgets)), {method: i for i, method in enumerate(methods)}


def _joined(matched: ExperimentResults, paper: ExperimentResults) -> ExperimentResults:
    """Rows matched per model, with those matched once for the methods it does not hold."""
    others = matched.frame[~matched.frame["method"].isin(paper.methods())]
    return ExperimentResults(
        paper.name,
        paper.dataset,
        pd.concat([paper.frame, others], ignore_index=True),
        paper.prompt_ids,
        paper.seeds,
        paper.path,
        paper.judges,
    )


def _matched_quantities(study: Study, judge: str, name: Role) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for convention in FLOPS:
        pair = chosen_budgets(study, name, convention)
        if pair is None:
            continue
        results, chosen = pair
        boot, index = _bootstrap(study, results, chosen)
        for a in index:
            found[f"matched_asr/{name}/{convention}/{a}"] = boot.rate(study.asr_columns[judge], index[a])
            for b in index:
                if a != b:
                    over = [m for m in (a, b) if not chosen[m].within]
                    note = f"{' and '.join(over)}: even the smallest budget costs more than the tolerance allows" if over else ""
                    found[f"matched/{name}/{convention}/{a}-{b}"] = difference(
                        boot, index[a], index[b], study.asr_columns[judge], note
                    )
    return found
