"""What the trie saves on recorded searches (Figures 1 and 3, Proposition 2)."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from saffron.analysis import tries
from saffron.analysis.sections.base import Section
from saffron.analysis.study import Study
from saffron.models.shapes import shape_of

Array = NDArray[np.float64]


def section(study: Study) -> Section:
    """Every recorded search with its cost, shared and not."""
    shape = shape_of(study.config, study.layout, "policy")
    record = {
        str(seed): [
            {"prompt_id": s.prompt_id, "method": s.method, "budget": s.budget, "recorded_tokens": s.size, **asdict(s.cost())}
            | dict(zip(("flops", "flops_unshared"), s.flops(shape), strict=True))
            for s in recorded.searches
        ]
        for seed, recorded in study.recorded.items()
    }
    return Section({"tries": record}, {study.judge: tries.quantities(study.recorded)})
