"""How well the MRM predicts the PRM on held-out prefixes (Figure 4b), beside persistence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saffron import workflow
from saffron.analysis import mrm
from saffron.analysis.sections.base import Section
from saffron.analysis.statistics import Estimate
from saffron.analysis.study import Study
from saffron.mrm import agreement

Array = NDArray[np.float64]


def section(study: Study) -> Section:
    """Statistics of Figure 4b."""
    record: dict[str, Any] = {
        "mrm": {name: estimate.as_record() for name, estimate in study.mrm_estimates.items()},
        "persistence": {name: estimate.as_record() for name, estimate in _persistence(study).items()},
    }
    names = workflow.variants(study.config)
    if len(names) > 1:
        record["mrm_variants"] = {
            variant: {name: estimate.as_record() for name, estimate in _of(study, variant).items()} for variant in names
        }
    return Section(record, {study.judge: {f"mrm/{name}": estimate for name, estimate in study.mrm_estimates.items()}})


def _of(study: Study, variant: str) -> dict[str, Estimate]:
    """The same statistics of a variant of the MRM that experiments of the replication read."""
    settings = study.config.analysis
    frames = {seed: mrm.load(study.config, study.layout, seed, variant) for seed in study.config.train_seeds}
    return mrm.estimates(frames, samples=settings.bootstrap_samples, seed=settings.seed, confidence=settings.confidence)


def _persistence(study: Study) -> dict[str, Estimate]:
    """The same statistics of the prediction that a token changes nothing, on the same prefixes."""
    settings = study.config.analysis
    frames = {seed: agreement.persistence(frame) for seed, frame in study.mrm_frames.items()}
    return mrm.estimates(frames, samples=settings.bootstrap_samples, seed=settings.seed, confidence=settings.confidence)
