"""Search results, checked for completeness and arranged so that everything compared is paired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saffron import records, workflow
from saffron.analysis.statistics import Cells
from saffron.config import Config, Experiment, Run
from saffron.layout import Layout
from saffron.methods.discovery import method as described
from saffron.records import RecordError

#: Outcomes of a cell beside attack success by every judge.
OUTCOMES = (
    "flops",
    "flops_per_model",
    "flops_policy",
    "flops_reward",
    "flops_executed",
    "reward_calls",
    "n_new_tokens",
    "finished",
)

#: Columns that may be empty: what a method does not give.
OPTIONAL = ("reward",)
#: Columns that hold a finite number in every row: all of them count something.
COUNTS = ("flops_policy", "flops_reward", "flops_executed_policy", "flops_executed_reward", "reward_calls", "n_new_tokens")

AGAIN, JUDGE_AGAIN = "run the search stage again", "run the judge stage again"


def asr_columns(judges: Sequence[str]) -> dict[str, str]:
    """Column of attack success by judge: ``asr`` by the first, which decides it, ``<judge>_asr`` by the others."""
    return {judge: f"{judge}_asr" if place else "asr" for place, judge in enumerate(judges)}


@dataclass(frozen=True)
class Key:
    """A cell: a method with its settings at one budget (None where each seed has its own, matched by compute)."""

    method: str
    settings_id: str
    budget: int | None


@dataclass(frozen=True)
class ExperimentResults:
    """One experiment over all training seeds.

    ``frame`` holds all rows (records.SEARCH) with the outcomes above added; ``path`` is the first seed's table, named in
    errors; ``prompt_ids`` are the benchmark's prompts; ``seeds`` the training seeds in order; ``judges`` those whose words stand
    in ``frame`` (:func:`judged`).
    """

    name: str
    dataset: str
    frame: pd.DataFrame
    prompt_ids: tuple[int, ...]
    seeds: tuple[int, ...]
    path: Path
    judges: tuple[str, ...]

    @property
    def outcomes_of_cells(self) -> tuple[str, ...]:
        """Columns of which cells have means: attack success by every judge, and the other outcomes."""
        return (*asr_columns(self.judges).values(), *OUTCOMES)

    def cell_keys(self) -> list[Key]:
        """Every cell that all training seeds have, sorted; budget None where each seed was run at one of its own."""
        columns = self.frame[["method", "settings_id", "budget", "train_seed"]].drop_duplicates()
        present = Counter((str(m), str(s), int(b)) for m, s, b, _ in columns.itertuples(index=False))
        shared = [Key(*cell) for cell in sorted(present) if present[cell] == len(self.seeds)]
        pairs = sorted({(m, s) for m, s, _ in present})
        return shared + [Key(m, s, None) for m, s in pairs if (m, s) not in {(key.method, key.settings_id) for key in shared}]

    def budgets(self, method: str, settings_id: str = "default") -> list[int]:
        """Budgets of one method, ascending."""
        return [
            key.budget
            for key in self.cell_keys()
            if (key.method, key.settings_id) == (method, settings_id) and key.budget is not None
        ]

    def methods(self) -> list[str]:
        """Methods in the table."""
        return sorted(self.frame["method"].unique().tolist())

    def rows(self, key: Key) -> pd.DataFrame:
        """Rows of one cell."""
        frame = self.frame
        selected = frame[(frame["method"] == key.method) & (frame["settings_id"] == key.settings_id)]
        return selected if key.budget is None else selected[selected["budget"] == key.budget]

    def own_budget(self, key: Key, seed: int) -> int | None:
        """The one budget at which a training seed was run, None if there is none or more than one."""
        found = {
            cell.budget
            for cell, of in self._arrays
            if of == seed and (cell.method, cell.settings_id) == (key.method, key.settings_id)
        }
        return found.pop() if len(found) == 1 else None

    @cached_property
    def _arrays(self) -> dict[tuple[Key, int], np.ndarray]:
        """Outcomes of each cell and training seed, [outcomes, prompts], means over search seeds."""
        names = ["method", "settings_id", "budget", "train_seed"]
        mean = self.frame.groupby([*names, "prompt_id"])[list(self.outcomes_of_cells)].mean().sort_index()
        arrays: dict[tuple[Key, int], np.ndarray] = {}
        index: Any
        for index, rows in mean.groupby(level=names):
            method, settings_id, budget, seed = index
            arrays[Key(str(method), str(settings_id), int(budget)), int(seed)] = rows.to_numpy(dtype=float).T
        return arrays

    def outcomes(self, key: Key, budgets: dict[int, int] | None = None) -> np.ndarray:
        """Outcomes of one cell, [outcomes, training seeds, prompts], means over search seeds.

        Args:
            key: the cell.
            budgets: each training seed's budget where the key has none.

        Raises:
            RecordError: if the cell is not in the table.
        """
        arrays = []
        for seed in self.seeds:
            budget = key.budget
            if budget is None:
                budget = budgets[seed] if budgets else self.own_budget(key, seed)
            cell = Key(key.method, key.settings_id, budget)
            if (cell, seed) not in self._arrays:
                name = f"{key.method} (settings {key.settings_id}), budget {budget}, training seed {seed}"
                raise RecordError(f"{self.path}: column method: no rows of {name}; {AGAIN}")
            arrays.append(self._arrays[cell, seed])
        return np.stack(arrays, axis=1)

    def cells(self, keys: list[Key] | None = None, budgets: dict[Key, dict[int, int]] | None = None) -> Cells:
        """Outcomes of several cells, paired."""
        keys = self.cell_keys() if keys is None else keys
        stacked = np.stack([self.outcomes(key, (budgets or {}).get(key)) for key in keys])
        return Cells(tuple(keys), {name: stacked[:, i] for i, name in enumerate(self.outcomes_of_cells)})


def add_outcomes(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the outcomes of every row that no judge decides: FLOPs in each convention, and whether it finished."""
    flops = frame["flops_policy"] + frame["flops_reward"]
    multiplier = frame["method"].map(lambda name: described(name).multiplier())
    return frame.assign(
        flops=flops,
        flops_per_model=flops * multiplier,
        flops_executed=frame["flops_executed_policy"] + frame["flops_executed_reward"],
        finished=frame["finished"].astype(float),
    )


def judged(frame: pd.DataFrame, layout: Layout, seed: int, experiment: str, judges: Sequence[str]) -> pd.DataFrame:
    """Search rows of one training seed with what judges say of them: attack success (:func:`asr_columns`), and of each judge
    ``<judge>_score`` and ``<judge>_refused``, null where it does not say.

    Raises:
        RecordError: if a judge's table is missing, or is not of these outputs.
    """
    columns: dict[str, Any] = {}
    for judge, asr in asr_columns(judges).items():
        path = layout.judgements(seed, judge, experiment)
        said = judgements(frame, path, "success")
        columns |= {asr: said["success"].astype(float), f"{judge}_score": said["score"], f"{judge}_refused": said["refused"]}
    return frame.assign(**{name: values.to_numpy() for name, values in columns.items()})


def judgements(frame: pd.DataFrame, path: Path, column: str) -> pd.DataFrame:
    """The table of a judge or a measurement (records.JUDGEMENTS) in the order of some search rows, ``column`` of it complete.

    Raises:
        RecordError: if it is missing, or is not of these outputs.
    """
    table = records.read_table(path, records.JUDGEMENTS)
    if table.duplicated(list(records.OUTPUT)).any():
        raise RecordError(f"{path}: column prompt_id: outputs stand twice; {JUDGE_AGAIN}")
    said = frame[list(records.OUTPUT)].merge(table, on=list(records.OUTPUT), how="left")
    _refuse(said, path, column, said[column].isna(), "empty", JUDGE_AGAIN)
    _refuse(said, path, "score", np.isinf(said["score"].astype(float)), "infinite", JUDGE_AGAIN)
    return said


def expected_prompts(config: Config, layout: Layout, name: str) -> tuple[int, ...]:
    """Prompt ids that an experiment must have results for, ascending."""
    experiment = config.search.experiments[name]
    prompts = records.read_table(layout.prompts(experiment.dataset), records.PROMPTS)
    ids = sorted(int(i) for i in prompts["prompt_id"])
    return tuple(ids[: experiment.prompts])


def load(config: Config, layout: Layout, name: str, seeds: list[int] | None = None) -> ExperimentResults:
    """Read an experiment's tables and check that nothing is missing.

    Raises:
        RecordError: if a table, a method, a budget, a seed, a prompt or a judgement is missing or none of the config's, a row
            stands twice, or a value is empty, infinite or negative where it cannot be; names the file, the column and the cause.
    """
    if name not in config.search.experiments:
        raise RecordError(f"config {config.name} has no experiment {name}; add it to search.experiments")
    experiment = config.search.experiments[name]
    prompt_ids = expected_prompts(config, layout, name)
    chosen = list(config.train_seeds) if seeds is None else seeds
    judges = tuple(judge.name for judge in workflow.judges(config))
    frames = []
    for seed in chosen:
        path = layout.search(seed, name)
        frame = records.read_table(path, records.SEARCH)
        check(frame, path, experiment, prompt_ids, seed, config)
        frames.append(judged(frame, layout, seed, name, judges))
    frame = add_outcomes(pd.concat(frames, ignore_index=True))
    path = layout.search(chosen[0], name)
    return ExperimentResults(name, experiment.dataset, frame, prompt_ids, tuple(chosen), path, judges)


def check(
    frame: pd.DataFrame, path: Path, experiment: Experiment, prompt_ids: tuple[int, ...], seed: int, config: Config
) -> None:
    """Check one seed's table of one experiment against the config (see :func:`load`)."""
    for column in records.SEARCH.names:
        if column not in (*OPTIONAL, *COUNTS):
            _refuse(frame, path, column, frame[column].isna(), "empty")
    for column, wanted in (("dataset", experiment.dataset), ("train_seed", seed)):
        others = sorted(set(frame[column]) - {wanted})
        if others:
            raise RecordError(f"{path}: column {column}: holds {others}, expected {wanted} alone; {AGAIN}")
    unique = ["prompt_id", "method", "budget", "settings_id", "search_seed"]
    twice = frame[frame.duplicated(unique)]
    if len(twice):
        raise RecordError(f"{path}: column prompt_id: {_where(twice)} stands twice; {AGAIN}")
    runs = {(run.method, run.settings_id) for run in experiment.runs}
    _refuse(frame, path, "method", [cell not in runs for cell in _cells(frame)], "is none of the config's runs")
    _check_values(frame, path, experiment, config)
    for run in experiment.runs:
        _check_run(frame, path, experiment, run, prompt_ids, config.search.seeds_of(experiment))


def _check_values(frame: pd.DataFrame, path: Path, experiment: Experiment, config: Config) -> None:
    for column in COUNTS:
        _refuse(frame, path, column, ~np.isfinite(frame[column].astype(float)), "not finite")
    for column in COUNTS:
        _refuse(frame, path, column, frame[column] < 0, "negative")
    _refuse(frame, path, "flops_policy", frame["flops_policy"] == 0, "not positive")
    unrewarded = {
        (run.method, run.settings_id)
        for run in experiment.runs
        if described(run.method).may_lack_reward(config.search.settings_of(run))
    }
    lacks = np.array([cell in unrewarded for cell in _cells(frame)], dtype=bool)
    _refuse(frame, path, "reward", frame["reward"].isna() & ~lacks, "NaN")
    _refuse(frame, path, "reward", np.isinf(frame["reward"].astype(float)), "infinite")


def _check_run(
    frame: pd.DataFrame, path: Path, experiment: Experiment, run: Run, prompt_ids: tuple[int, ...], search_seeds: list[int]
) -> None:
    rows = frame[(frame["method"] == run.method) & (frame["settings_id"] == run.settings_id)]
    name = f"{run.method} (settings {run.settings_id})"
    if rows.empty:
        raise RecordError(f"{path}: column method: {name} is missing; {AGAIN}")
    present = sorted(int(budget) for budget in rows["budget"].unique())
    if experiment.match is None:
        missing = sorted(set(run.budgets) - set(present))
        if missing:
            raise RecordError(f"{path}: column budget: {name} lacks the budgets {missing}; {AGAIN}")
        _refuse(rows, path, "budget", ~rows["budget"].isin(run.budgets), "is none of the config's budgets")
    elif len(present) != 1 or present[0] not in run.budgets:
        raise RecordError(f"{path}: column budget: {name} has the budgets {present}, expected one of {run.budgets}; {AGAIN}")
    absent_seeds = sorted(set(search_seeds) - set(rows["search_seed"]))
    if absent_seeds:
        raise RecordError(f"{path}: column search_seed: {name} lacks the search seeds {absent_seeds}; {AGAIN}")
    _refuse(rows, path, "search_seed", ~rows["search_seed"].isin(search_seeds), "is none of the config's search seeds")
    for budget, search_seed in product(present, search_seeds):
        cell = rows[(rows["budget"] == budget) & (rows["search_seed"] == search_seed)]
        absent = sorted(set(prompt_ids) - set(cell["prompt_id"]))
        if absent:
            cause = f"{name}, budget {budget}, search seed {search_seed} has {len(cell)} of {len(prompt_ids)} prompts"
            raise RecordError(f"{path}: column prompt_id: {cause}, first missing {absent[0]}; {AGAIN}")
        extra = sorted(set(cell["prompt_id"]) - set(prompt_ids))
        if extra:
            raise RecordError(
                f"{path}: column prompt_id: {name}, budget {budget} has prompts {extra[:3]} that are not in {experiment.dataset}"
            )


def _cells(frame: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Method and settings of every row."""
    return zip(frame["method"], frame["settings_id"], strict=True)


def _refuse(frame: pd.DataFrame, path: Path, column: str, bad: Any, cause: str, remedy: str = AGAIN) -> None:
    """Raise a RecordError if any row is bad, naming the first."""
    rows = frame[np.asarray(bad, dtype=bool)]
    if len(rows):
        where = f"{path}: column {column}: {cause} in {len(rows)} rows, first {_where(rows)}"
        raise RecordError(f"{where} ({rows.iloc[0][column]}); {remedy}")


def _where(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return f"{first['method']} (settings {first['settings_id']}), budget {first['budget']}, prompt {first['prompt_id']}"
