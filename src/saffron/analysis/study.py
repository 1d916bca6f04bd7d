"""The stored results of one config, loaded once for all parts of the analysis (:mod:`saffron.analysis.sections`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from saffron import roles, workflow
from saffron.analysis import mrm, tries
from saffron.analysis.results import ExperimentResults, asr_columns, load
from saffron.analysis.statistics import Bootstrap, Cells, Estimate
from saffron.config import Config, Convention, Match
from saffron.layout import Layout
from saffron.methods.discovery import methods
from saffron.records import RecordError
from saffron.roles import Role

Array = NDArray[np.float64]

#: Names of methods, and of the one other system, in every figure and table.
LABELS = {name: method.label for name, method in methods().items()} | {"deepalign": "DeepAlign"}


@dataclass
class Study:
    """The results of one config, loaded and checked on first use."""

    config: Config
    layout: Layout
    _loaded: dict[str, ExperimentResults] = field(default_factory=dict, repr=False)

    def has(self, role: Role, convention: Convention = "once") -> bool:
        """Whether an experiment of the config has a role."""
        return roles.holder(self.config.search, role, convention) is not None

    def name(self, role: Role, convention: Convention = "once") -> str:
        """Name of the experiment that has a role.

        Raises:
            RecordError: if none has.
        """
        found = roles.holder(self.config.search, role, convention)
        if found is None:
            raise RecordError(
                f"config {self.config.name}: no experiment has the role {role}; give it to one in search.experiments"
            )
        return found

    def of(self, role: Role, convention: Convention = "once") -> ExperimentResults:
        """Results of the experiment that has a role (see :meth:`results`)."""
        return self.results(self.name(role, convention))

    def results(self, name: str) -> ExperimentResults:
        """One experiment's results (see :func:`saffron.analysis.results.load`)."""
        if name not in self._loaded:
            self._loaded[name] = load(self.config, self.layout, name)
        return self._loaded[name]

    def bootstrap(self, cells: Cells) -> Bootstrap:
        """A bootstrap with the config's settings."""
        settings = self.config.analysis
        return Bootstrap(cells, settings.bootstrap_samples, settings.seed, settings.confidence)

    @cached_property
    def asr_columns(self) -> dict[str, str]:
        """Column of attack success by judge, the judge that decides it first."""
        return asr_columns([judge.name for judge in workflow.judges(self.config)])

    @property
    def judges(self) -> tuple[str, ...]:
        """Judges that stand in every table; the first decides attack success."""
        return tuple(self.asr_columns)

    @property
    def judge(self) -> str:
        """The judge that decides attack success."""
        return self.judges[0]

    def cells(self, name: str) -> pd.DataFrame:
        """One row per cell of an experiment: rates with intervals, and mean compute per prompt in either convention."""
        results = self.results(name)
        boot = self.bootstrap(results.cells())
        rows = []
        for i, key in enumerate(boot.cells.keys):
            row: dict[str, Any] = {
                "experiment": name,
                "dataset": results.dataset,
                "method": key.method,
                "settings_id": key.settings_id,
            }
            row |= {"budget": key.budget, "n_prompts": boot.cells.shape[1], "n_seeds": boot.cells.shape[0]}
            for judge in self.judges:
                prefix = self.asr_columns[judge]
                estimate = boot.rate(prefix, i)
                row |= {prefix: estimate.value, f"{prefix}_low": estimate.low, f"{prefix}_high": estimate.high}
            means = (
                "flops",
                "flops_per_model",
                "flops_policy",
                "flops_reward",
                "flops_executed",
                "reward_calls",
            )
            for outcome in (*means, "n_new_tokens", "finished"):
                row[outcome] = float(boot.means(outcome)[0][i])
            rows.append(row)
        frame = pd.DataFrame(rows).astype({"budget": "Int64"})
        order = frame["method"].map({method: i for i, method in enumerate(methods())})
        return frame.iloc[np.lexsort([frame["budget"].fillna(-1), frame["settings_id"], order])].reset_index(drop=True)

    def match_rule(self) -> Match:
        """The rule of Table 2: that of the config's experiment with the role `matched`, or the paper's."""
        return workflow.match_rule(self.config)

    @cached_property
    def scaling_cells(self) -> pd.DataFrame:
        """Cells of the experiment with the role `scaling`."""
        return self.cells(self.name("scaling"))

    @cached_property
    def scaling_bootstrap(self) -> Bootstrap:
        """A bootstrap over the cells of the experiment with the role `scaling`."""
        return self.bootstrap(self.of("scaling").cells())

    @cached_property
    def mrm_frames(self) -> dict[int, pd.DataFrame]:
        """Held-out prefixes of the default MRM, by training seed."""
        return self.mrm_frames_of("default")

    def mrm_frames_of(self, variant: str) -> dict[int, pd.DataFrame]:
        """The same of a variant of the MRM."""
        return {seed: mrm.load(self.config, self.layout, seed, variant) for seed in self.config.train_seeds}

    @cached_property
    def mrm_estimates(self) -> dict[str, Estimate]:
        """Statistics of Figure 4b."""
        return self.agreement(self.mrm_frames)

    def agreement(self, frames: dict[int, pd.DataFrame]) -> dict[str, Estimate]:
        """The same of any predictions, by training seed."""
        settings = self.config.analysis
        return mrm.estimates(frames, samples=settings.bootstrap_samples, seed=settings.seed, confidence=settings.confidence)

    @cached_property
    def recorded(self) -> dict[int, tries.Record]:
        """Recorded searches by training seed."""
        return {seed: tries.load(self.layout.search_trees(seed)) for seed in self.config.train_seeds}
