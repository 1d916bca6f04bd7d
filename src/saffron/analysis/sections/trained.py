"""What models that were trained here from one of the hub do on held-out conversations."""

from __future__ import annotations

from saffron import records, workflow
from saffron.analysis.sections.base import Section
from saffron.analysis.study import Study


def section(study: Study) -> Section:
    """Their own records (saffron.models.trained) by model and training seed."""
    names = workflow.trained_from_hub(study.config)
    found = {
        name: {str(seed): records.read_json(study.layout.held_out(name, seed)) for seed in study.config.train_seeds}
        for name in names
    }
    return Section({"trained_models": found} if found else {})
