"""What an experiment consists of: runs, budgets, prompts. Loads no torch, so that joining its tables needs none."""

from __future__ import annotations

import pandas as pd

from saffron import records
from saffron.config import Config, ConfigError, Experiment, Run
from saffron.layout import Layout

#: Order of the rows of an experiment's table; ``run`` is the run's place in the config.
ROW_ORDER = ["run", "budget", "search_seed", "prompt_id"]


def named(config: Config, name: str) -> Experiment:
    """The experiment of this name.

    Raises:
        ConfigError: if there is none, with the known ones.
    """
    if name not in config.search.experiments:
        raise ConfigError(f"search.experiments: no experiment {name}; there are {', '.join(config.search.experiments)}")
    return config.search.experiments[name]


def run_named(experiment: Experiment, name: str, key: str) -> Run:
    """The run of an experiment with this key.

    Raises:
        ConfigError: if there is none, with the known ones.
    """
    found = [run for run in experiment.runs if run.key == key]
    if not found:
        known = ", ".join(run.key for run in experiment.runs)
        raise ConfigError(f"search.experiments.{name}: no run {key}; there are {known}")
    return found[0]


def prompts(layout: Layout, experiment: Experiment) -> pd.DataFrame:
    """The experiment's prompts (records.PROMPTS), by id.

    Raises:
        RecordError: if the prompt set is missing or malformed.
    """
    path = layout.prompts(experiment.dataset)
    table = records.read_table(path, records.PROMPTS).sort_values("prompt_id")
    if table.empty or not table["prompt_id"].is_unique:
        raise records.RecordError(
            f"{path}: column prompt_id: {'no rows' if table.empty else 'repeated ids'}; run the stage sources again"
        )
    return table.head(experiment.prompts or len(table))
