"""More children, more lookahead (Table 1): compute, attack success, ScalEff under the limit fixed beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saffron.analysis import scaling
from saffron.analysis.matching import FLOPS
from saffron.analysis.results import ExperimentResults, Key
from saffron.analysis.sections.base import Section
from saffron.analysis.statistics import NOT_NEGATIVE, Estimate
from saffron.analysis.study import Study
from saffron.methods.base import Exploration, MethodError
from saffron.methods.discovery import method as described
from saffron.methods.discovery import ordered

Array = NDArray[np.float64]


def section(study: Study) -> Section:
    """Rows of Table 1; what compute they take is said once, whatever the judge."""
    if not study.has("exploration"):
        return Section()
    found = {judge: _exploration_quantities(study, judge) for judge in study.judges}
    others = {judge: {name: e for name, e in found[judge].items() if "compute/" not in name} for judge in study.judges[1:]}
    return Section({"exploration": rows(study)}, {study.judge: found[study.judge]} | others)


def rows(study: Study) -> list[dict[str, Any]]:
    """Rows of Table 1: compute, ASR, ScalEff under the limit fixed beforehand."""
    results = study.of("exploration")
    boot = study.bootstrap(results.cells())
    index = {key: i for i, key in enumerate(boot.cells.keys)}
    rows = []
    for method in ordered(results.methods()):
        keys = _keys(study, results, method)
        base = float(boot.means("flops")[0][index[keys[0]]])
        limit = _exploration(method).limit_ratio * base
        for key in keys:
            flops = float(boot.means("flops")[0][index[key]])
            row = {
                "method": method,
                **_knob(study, key),
                "budget": key.budget,
                "flops": flops,
                "limit": limit,
                "n": boot.cells.shape[1],
            }
            row["flops_per_model"] = float(boot.means("flops_per_model")[0][index[key]])
            row["reward_calls"] = float(boot.means("reward_calls")[0][index[key]])
            for judge in study.judges:
                estimate = boot.rate(study.asr_columns[judge], index[key])
                row[judge] = estimate.as_record()
                row[f"scaleff_{judge}"] = scaling.scaleff(flops, estimate.value or 0.0, limit)
            rows.append(row)
    return rows


def _knob(study: Study, key: Key) -> dict[str, Any]:
    run = next(
        r
        for r in study.config.search.experiments[study.name("exploration")].runs
        if (r.method, r.settings_id) == (key.method, key.settings_id)
    )
    knob = _exploration(key.method).knob
    return {"knob": knob, "value": getattr(study.config.search.settings_of(run), knob), "settings_id": key.settings_id}


def _keys(study: Study, results: ExperimentResults, method: str) -> list[Key]:
    """Rows of one method, the least exploring first."""
    keys = [key for key in results.cell_keys() if key.method == method]
    return sorted(keys, key=lambda key: (_knob(study, key)["value"], key.budget))


def _exploration(method: str) -> Exploration:
    """What Table 1 varies of a method.

    Raises:
        MethodError: if the method's description names nothing.
    """
    found = described(method).exploration
    if found is None:
        raise MethodError(f"search method {method}: no METHOD.exploration, so Table 1 cannot show it; take its runs out")
    return found


def _exploration_quantities(study: Study, judge: str) -> dict[str, Estimate]:
    results, outcome = study.of("exploration"), study.asr_columns[judge]
    boot = study.bootstrap(results.cells())
    index = {key: i for i, key in enumerate(boot.cells.keys)}
    found: dict[str, Estimate] = {}
    for method in ordered(results.methods()):
        keys = _keys(study, results, method)
        base = float(boot.means("flops")[0][index[keys[0]]])
        limit = _exploration(method).limit_ratio * base
        for key in keys:
            i = index[key]
            found[f"asr/exploration/{method}/{key.settings_id}"] = boot.rate(outcome, i)
            for convention in FLOPS:
                found[f"compute/exploration/{convention}/{method}/{key.settings_id}"] = boot.estimate(
                    lambda f, i=i: f[..., i] / 1e12, FLOPS[convention], within=NOT_NEGATIVE
                )
            found[f"scaleff/{method}/{key.settings_id}"] = boot.estimate(
                lambda f, a, i=i, limit=limit: np.where(a[..., i] > 0, np.log(limit / f[..., i]) / a[..., i], np.nan),
                "flops",
                outcome,
            )
        if len(keys) == 2:
            i, j = (index[key] for key in keys)
            found[f"exploration/compute/{method}"] = boot.estimate(lambda f, i=i, j=j: (f[..., j] - f[..., i]) / 1e12, "flops")
            undefined = any(boot.means(outcome)[0][k] == 0 for k in (i, j))
            sign = boot.estimate(
                lambda f, a, i=i, j=j, limit=limit: scaling.scaleff_difference_sign(
                    f[..., i], a[..., i], f[..., j], a[..., j], limit
                ),
                "flops",
                outcome,
                note="difference of ScalEff times both ASRs, which has its sign and stays defined where an ASR is 0",
            )
            found[f"exploration/scaleff/{method}"] = (
                Estimate(None, per_seed=(None,) * len(sign.per_seed), n=sign.n, note="ScalEff is undefined where ASR is 0")
                if undefined
                else sign
            )
    return found
