"""Attack success against compute (Figures 2 and 4a): curves, their logarithmic fits, compute at equal attack success."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saffron import workflow
from saffron.analysis import mrm, scaling
from saffron.analysis.matching import FLOPS
from saffron.analysis.results import Key
from saffron.analysis.sections.base import Section, difference
from saffron.analysis.statistics import ANY, AT_MOST_1, Estimate
from saffron.analysis.study import Study
from saffron.config import Convention
from saffron.methods.discovery import ordered
from saffron.roles import PROPOSED

Array = NDArray[np.float64]


def section(study: Study) -> Section:
    """Curves, fits and bands of the experiment with the role `scaling`, and MRM against guard in Saffron-1's outputs."""
    if not study.has("scaling"):
        return Section()
    present = ordered(study.of("scaling").methods())
    record: dict[str, Any] = {
        "curves": {judge: {method: points(study, method, judge) for method in present} for judge in study.judges},
        "fits": fits(study),
        "bands": {judge: bands(study, judge) for judge in study.judges},
    }
    if PROPOSED in present:
        record["mrm_in_search"] = mrm_in_search(study)
    if PROPOSED in present and study.match_rule().method in present:
        record["equal_asr"] = {
            judge: {convention: equal_asr(study, judge, convention) for convention in FLOPS} for judge in study.judges
        }
    return Section(record, {judge: _scaling_quantities(study, judge) for judge in study.judges})


def points(study: Study, method: str, judge: str, convention: Convention = "once") -> dict[str, list[float]]:
    """Points of one scaling curve: budgets, mean FLOPs per prompt, ASR and its interval."""
    frame = study.scaling_cells
    rows = frame[(frame["method"] == method) & (frame["settings_id"] == "default")].sort_values("budget")
    outcome = study.asr_columns[judge]
    return {
        "budget": [int(budget) for budget in rows["budget"]],
        "flops": rows[FLOPS[convention]].tolist(),
        "asr": rows[outcome].tolist(),
        "low": rows[f"{outcome}_low"].tolist(),
        "high": rows[f"{outcome}_high"].tolist(),
    }


def _indices(study: Study, method: str) -> list[int]:
    index = {key: i for i, key in enumerate(study.scaling_bootstrap.cells.keys)}
    return [index[Key(method, "default", budget)] for budget in study.of("scaling").budgets(method)]


def fits(study: Study) -> dict[str, Any]:
    """Logarithmic fits of every curve, by judge and convention; compute in TFLOP per prompt."""
    record: dict[str, Any] = {}
    for judge in study.judges:
        for convention in FLOPS:
            for method in ordered(study.of("scaling").methods()):
                curve = points(study, method, judge, convention)
                if not scaling.can_be_fitted(curve["flops"]):
                    continue
                fit = scaling.log_fit([flops / 1e12 for flops in curve["flops"]], curve["asr"])
                record.setdefault(judge, {}).setdefault(convention, {})[method] = {
                    "intercept": fit.intercept,
                    "slope_per_ln_tflop": fit.slope,
                    "r_squared": None if np.isnan(fit.r_squared) else fit.r_squared,
                    "n_points": fit.n_points,
                }
    return record


def bands(study: Study, judge: str, steps: int = 30) -> dict[str, dict[str, list[float | None]]]:
    """Interval of every curve's logarithmic fit along its compute, from the bootstrap over prompts and training seeds.

    Compute is in FLOPs counted once; a band is None at an end that too many resamples leave undefined.
    """
    results, outcome, boot = study.of("scaling"), study.asr_columns[judge], study.scaling_bootstrap
    found: dict[str, dict[str, list[float | None]]] = {}
    for method in ordered(results.methods()):
        curve = _indices(study, method)
        flops = boot.means("flops")[0][curve]
        if len(curve) < 3 or not scaling.can_be_fitted(flops.tolist()):
            continue
        grid = np.geomspace(flops.min(), flops.max(), steps)

        def fitted(f: Array, a: Array, at: float, curve: list[int] = curve) -> Array:
            intercept, slope, _ = scaling.fit_coefficients(f[..., curve], a[..., curve])
            return intercept + slope * np.log(at)

        band = [boot.estimate(partial(fitted, at=at), "flops", outcome) for at in grid]
        found[method] = {
            "flops": grid.tolist(),
            "asr": [estimate.value for estimate in band],
            "low": [estimate.low for estimate in band],
            "high": [estimate.high for estimate in band],
        }
    return found


def equal_asr(study: Study, judge: str, convention: Convention = "once") -> list[dict[str, Any]]:
    """Best-of-N's compute over Saffron-1's at the ASR of each Best-of-N, from measured points alone."""
    ours, theirs = points(study, "saffron", judge, convention), points(study, "best_of_n", judge, convention)
    rows = []
    for budget, flops, asr in zip(theirs["budget"], theirs["flops"], theirs["asr"], strict=True):
        crossing = scaling.measured_compute_at(ours["flops"], ours["asr"], asr)
        ratio = None if crossing.compute is None else flops / crossing.compute
        relation = {"": "", "at most": "at least", "not reached": "not reached"}[crossing.bound]
        rows.append(
            {
                "best_of_n": budget,
                "asr": asr,
                "flops": flops,
                "saffron_flops": crossing.compute,
                "ratio": ratio,
                "relation": relation,
            }
        )
    return rows


def mrm_in_search(study: Study) -> list[dict[str, Any]]:
    """Agreement of MRM and guard at Saffron-1's outputs, by search width; empty where no judge is the guard."""
    settings, guard = study.config.analysis, workflow.guard_judge(study.config)
    if guard is None:
        return []
    results = study.of("scaling")
    found = []
    for budget in results.budgets("saffron"):
        rows = results.rows(Key("saffron", "default", budget))
        frames = {seed: mrm.at_outputs(rows[rows["train_seed"] == seed], f"{guard}_score") for seed in study.config.train_seeds}
        values = mrm.estimates(frames, samples=settings.bootstrap_samples, seed=settings.seed, confidence=settings.confidence)
        names = ("mae", "mean_signed_error", "r_squared", "sign_agreement")
        found.append({"budget": budget, "n": values["mae"].n, **{name: values[name].as_record() for name in names}})
    return found


def _scaling_quantities(study: Study, judge: str) -> dict[str, Estimate]:
    results, outcome, boot = study.of("scaling"), study.asr_columns[judge], study.scaling_bootstrap
    index = {key: i for i, key in enumerate(boot.cells.keys)}
    found: dict[str, Estimate] = {}
    for key, i in index.items():
        if key.settings_id == "default":
            found[f"asr/scaling/{key.method}/{key.budget}"] = boot.rate(outcome, i)
    for method in ordered(results.methods()):
        curve = _indices(study, method)
        if len(curve) < 2:
            continue
        for convention in FLOPS:
            for position, name in enumerate(("intercept", "slope", "r_squared")):
                found[f"fit/scaling/{convention}/{method}/{name}"] = boot.estimate(
                    lambda f, a, c=curve, p=position: scaling.fit_coefficients(f[..., c] / 1e12, a[..., c])[p],
                    FLOPS[convention],
                    outcome,
                    within=AT_MOST_1 if name == "r_squared" else ANY,
                )
    found |= _saffron_curve_quantities(study, judge)
    return found


def _saffron_curve_quantities(study: Study, judge: str) -> dict[str, Estimate]:
    results, outcome, boot = study.of("scaling"), study.asr_columns[judge], study.scaling_bootstrap
    methods = results.methods()
    found: dict[str, Estimate] = {}
    if "saffron" not in methods:
        return found
    saffron, budgets = _indices(study, "saffron"), results.budgets("saffron")
    if len(budgets) > 1:
        found["slope_per_ln_budget/scaling/saffron"] = boot.estimate(
            lambda a: scaling.fit_coefficients(np.array(budgets, dtype=float), a[..., saffron])[1], outcome
        )
    for (i, low), (j, high) in zip(
        zip(saffron, budgets, strict=True), list(zip(saffron, budgets, strict=True))[1:], strict=False
    ):
        found[f"step/scaling/saffron/{low}-{high}"] = difference(boot, j, i, outcome)
    index = {key: i for i, key in enumerate(boot.cells.keys)}
    none = index.get(Key("no_defense", "default", 0))
    if none is not None:
        found["below_no_defense/scaling/saffron"] = boot.estimate(
            lambda a: (a[..., saffron] - a[..., [none]]).max(axis=-1), outcome
        )
    if "best_of_n" in methods and len(budgets) > 1 and len(results.budgets("best_of_n")) > 1:
        best = _indices(study, "best_of_n")

        def log_ratio(flops: Array, asr: Array) -> Array:
            return scaling.log_compute_ratio(
                flops[..., best], asr[..., best], flops[..., saffron], asr[..., saffron], asr[..., best[-1]]
            )

        note = f"at the ASR of Best-of-{results.budgets('best_of_n')[-1]}, both read off their fits"
        for convention in FLOPS:
            name = f"compute_ratio/scaling/fit/{convention}"
            found[f"{name}/log"] = boot.estimate(log_ratio, FLOPS[convention], outcome, note=note)
            found[name] = found[f"{name}/log"].mapped(np.exp)
    return found
