"""What the runs of an experiment read and give in common. Loads no torch, so that joining its tables needs none."""

from __future__ import annotations

import pandas as pd

from saffron import records
from saffron.jobs import SearchJob
from saffron.layout import Layout

#: Order of the rows of an experiment's table; ``run`` is the run's place in the config.
ROW_ORDER = ["run", "budget", "search_seed", "prompt_id"]


def prompts(layout: Layout, job: SearchJob) -> pd.DataFrame:
    """A run's prompts (records.PROMPTS), by id.

    Raises:
        RecordError: if the prompt set is missing or malformed.
    """
    path = layout.prompts(job.dataset)
    table = records.read_table(path, records.PROMPTS).sort_values("prompt_id")
    if table.empty or not table["prompt_id"].is_unique:
        raise records.RecordError(
            f"{path}: column prompt_id: {'no rows' if table.empty else 'repeated ids'}; run the stage sources again"
        )
    return table.head(job.prompts or len(table))
