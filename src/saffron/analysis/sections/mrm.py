"""How well the MRM predicts the PRM on held-out prefixes (Figure 4b), beside persistence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saffron import workflow
from saffron.analysis.sections.base import Section
from saffron.analysis.statistics import Estimate
from saffron.analysis.study import Study
from saffron.mrm import agreement


def section(study: Study) -> Section:
    """Statistics of Figure 4b; of every variant of the MRM too, where experiments of the replication read several."""
    persistence = study.agreement({seed: agreement.persistence(frame) for seed, frame in study.mrm_frames.items()})
    record: dict[str, Any] = {"mrm": _records(study.mrm_estimates), "persistence": _records(persistence)}
    names = workflow.variants(study.config)
    if len(names) > 1:
        others = {name: _records(study.agreement(study.mrm_frames_of(name))) for name in names if name != "default"}
        record["mrm_variants"] = {"default": record["mrm"]} | others
    return Section(record, {study.judge: {f"mrm/{name}": estimate for name, estimate in study.mrm_estimates.items()}})


def _records(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.as_record() for name, estimate in estimates.items()}
