"""What notebooks and report read: the stored analysis of one config, checked to belong to the stored results."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from saffron import config as configs
from saffron import records
from saffron.analysis import mrm, tries
from saffron.analysis import stage as analysis
from saffron.analysis.study import Study
from saffron.config import Config
from saffron.layout import Layout
from saffron.records import RecordError


def _again(config: Config, path: str | Path) -> str:
    """How to have one file made again: Snakemake makes a missing intermediate file only when it is asked for by name."""
    return f"run `snakemake --configfile config/{config.name}.yaml {Path(path).as_posix()}`"


@dataclass(frozen=True)
class View:
    """One config's results, read on first use. ``seed`` is the training seed drawn where only one can be."""

    config: Config
    layout: Layout
    seed: int

    @classmethod
    def open(cls, config: str | Path, root: str | Path = ".", seed: int | None = None) -> View:
        """Open the results of a config file below ``root``.

        Raises:
            RecordError: if the analysis is missing, or older than a result it was made from; names the file.
            ConfigError: if the config is not valid.
            ValueError: if the config has no such training seed.
        """
        loaded = configs.load(config)
        return cls.of(loaded, Layout(loaded.name, Path(root)), seed)

    @classmethod
    def of(cls, config: Config, layout: Layout, seed: int | None = None) -> View:
        """The same for a loaded config (see :meth:`open`)."""
        if seed is not None and seed not in config.train_seeds:
            raise ValueError(f"seed {seed} is none of the config's train_seeds {config.train_seeds}")
        view = cls(config, layout, config.train_seeds[0] if seed is None else seed)
        view.check()
        return view

    def check(self) -> None:
        """Check that the analysis was made from the results that are stored now (see :meth:`open`)."""
        path = self.layout.analysis / analysis.ANALYSIS
        for name, digest in self.analysis["inputs"].items():
            stored = self.layout.root / name
            if not stored.exists():
                raise RecordError(f"{stored}: missing, but {path} was made from it; {_again(self.config, name)}")
            if records.sha256(stored) != digest:
                raise RecordError(f"{path}: stale, {stored} has changed since; run `make figures CONFIG={self.config.name}`")

    @cached_property
    def analysis(self) -> dict[str, Any]:
        """``analysis.json``."""
        return records.read_json(self.layout.analysis / analysis.ANALYSIS, ("inputs", "judges"))

    @cached_property
    def claims(self) -> list[dict[str, Any]]:
        """``claims.json``."""
        return records.read_json_list(self.layout.analysis / analysis.CLAIMS, ("id", "verdict"))

    @cached_property
    def cells(self) -> pd.DataFrame:
        """``cells.parquet``: one row per experiment, method, settings and budget."""
        return records.read_table(self.layout.analysis / analysis.CELLS)

    @cached_property
    def recorded(self) -> tries.Record:
        """The recorded searches of this seed."""
        return tries.load(self.layout.search_trees(self.seed))

    @cached_property
    def study(self) -> Study:
        """The results themselves, row by row."""
        return Study(self.config, self.layout)

    @cached_property
    def mrm_evaluation(self) -> pd.DataFrame:
        """Held-out prefixes of this seed's MRM."""
        return mrm.load(self.config, self.layout, self.seed)

    @property
    def judges(self) -> list[str]:
        """Judges of the analysis; the first decides attack success."""
        return self.analysis["judges"]

    @property
    def judge(self) -> str:
        """The judge that decides attack success."""
        return self.judges[0]

    @property
    def show_text(self) -> bool:
        """Whether prompts and outputs may be printed."""
        return self.config.report.show_text

    def section(self, name: str) -> Any:
        """A section of the analysis.

        Raises:
            RecordError: if the config's experiments do not give it.
        """
        if not self.analysis.get(name):
            path = self.layout.analysis / analysis.ANALYSIS
            raise RecordError(f"{path}: no section {name}: the config {self.config.name} lacks the experiment it is made of")
        return self.analysis[name]
