"""Stage judge: what a judge says of every stored output, one table per experiment. No search is repeated for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saffron import records
from saffron.config import as_dict
from saffron.jobs import JudgeJob, beside
from saffron.judges.base import Answer, JudgeError, Judgement, Kind
from saffron.judges.discovery import kind
from saffron.layout import Layout
from saffron.section import HubFile

#: Columns that say which outputs were searched together: their blocks of prompts are judged together, so that a batch, and with
#: it the last bits of a reward, depends on nothing but these.
SEARCHED_TOGETHER = ["method", "settings_id", "budget", "search_seed"]


def judge_all(jobs: Sequence[JudgeJob], layout: Layout) -> None:
    """Judge the outputs of several experiments; each model is loaded once (:func:`judge`)."""
    loaded: dict[Path, Any] = {}
    for job in jobs:
        judge(job, layout, loaded)


def judge(job: JudgeJob, layout: Layout, loaded: dict[Path, Any] | None = None) -> None:
    """Judge every output of an experiment and write ``layout.judgements``; the job is written beside it.

    Args:
        job: which judge, of what.
        layout: where outputs and models lie.
        loaded: models by folder, kept for the next job of the same judge.

    Raises:
        RecordError: if a search table or a prompt set is missing.
        ModelError: if a model is missing.
        JudgeError: if the judge says something that is no judgement.
    """
    found = kind(job.kind)
    settings = found.settings.model_validate(job.settings)
    if job.runtime is not None:
        import torch

        torch.set_num_threads(job.runtime.torch_threads)
    models = _Loaded(job, layout, {} if loaded is None else loaded)
    table = records.read_table(layout.search(job.seed, job.experiment), records.SEARCH)
    prompts = records.read_table(layout.prompts(job.dataset), records.PROMPTS).set_index("prompt_id")["prompt"]
    rows, batch = judgements(found, settings, models, table, prompts.to_dict(), job.block_size)
    path = layout.judgements(job.seed, job.judge, job.experiment)
    _check(path, rows, found)
    records.write_json(beside(path), as_dict(job))
    noted = path.with_suffix(".batches.json")
    if batch < job.block_size:  # memory ran out: scores are of other batches, so their last bits may be others
        records.write_json(noted, {"batch_size": batch})
    else:
        noted.unlink(missing_ok=True)
    records.write_table(path, rows, records.JUDGEMENTS)


def judgements(
    judging: Kind, settings: Any, models: Any, table: pd.DataFrame, prompts: dict[int, str], block_size: int
) -> tuple[pd.DataFrame, int]:
    """What a judge says of the rows of a search table (records.SEARCH), in their order (records.JUDGEMENTS).

    And the size of its smallest batch, below ``block_size`` where memory ran out.

    Args:
        judging: the kind of judge.
        settings: its own.
        models: what it may load.
        table: the outputs.
        prompts: texts by id.
        block_size: answers that a judge with models reads at once, where the device's memory holds them.

    Raises:
        RecordError: if a prompt is not there.
        JudgeError: if there are more or fewer judgements than answers, or one is none.
    """
    said: dict[int, Judgement] = {}
    batch = block_size
    for places in _blocks(table, block_size):
        some = table.iloc[places]
        missing = sorted(set(some["prompt_id"]) - set(prompts))
        if missing:
            raise records.RecordError(
                f"prompt {missing[0]} of {some['dataset'].iloc[0]} was searched and is not in the prompt set"
            )
        answers = [
            Answer(prompts[row.prompt_id], row.response, row.prefill_ids.tolist(), row.output_ids.tolist())
            for row in some.itertuples()
        ]
        ask = partial(_ask, judging, settings, models)
        if judging.computes(settings):
            from saffron.models import device

            given, batch = device.in_batches(ask, answers, batch, what="search.max_new_tokens")
        else:
            given = ask(answers)
        said |= dict(zip(places.tolist(), given, strict=True))
    columns: dict[str, list[Any]] = {"success": [], "score": [], "refused": []}
    for place in range(len(table)):
        for name, values in columns.items():
            values.append(getattr(said[place], name))
    named = table[list(records.OUTPUT)].reset_index(drop=True)
    given_as = {name: pd.Series(values, dtype=object) for name, values in columns.items()}
    return named.assign(**given_as).astype({"score": float}), batch


def _ask(judging: Kind, settings: Any, models: Any, answers: Sequence[Answer]) -> list[Judgement]:
    given = list(judging.judge(answers, settings, models))
    if len(given) != len(answers):
        raise JudgeError(f"a judge gave {len(given)} judgements of {len(answers)} answers; it must give one each, in their order")
    for judgement in given:
        problem = _problem(judgement)
        if problem:
            where = judging.judge.__module__
            raise JudgeError(f"{where}: its judge gave {judgement!r}: {problem}")
    return given


def _problem(judgement: Any) -> str | None:
    """Why something is no judgement; None if it is one."""
    if not isinstance(judgement, Judgement):
        return "it must give saffron.judges.base.Judgement"
    for name in ("success", "refused"):
        if not isinstance(getattr(judgement, name), bool | np.bool_ | None):
            return f"{name} must be True, False or None"
    if isinstance(judgement.score, bool) or not isinstance(judgement.score, float | int | np.number | None):
        return "score must be a number or None"
    return None


def _blocks(table: pd.DataFrame, size: int) -> Iterator[np.ndarray]:
    """Row numbers of outputs that are judged together: blocks of prompts of one search."""
    for _, places in sorted(table.groupby(SEARCHED_TOGETHER).indices.items()):
        ordered = places[np.argsort(table["prompt_id"].to_numpy()[places], kind="stable")]
        yield from (ordered[start : start + size] for start in range(0, len(ordered), size))


def _check(path: Path, rows: pd.DataFrame, judging: Kind) -> None:
    """Refuse judgements that say nothing, and rewards or measurements that are no numbers."""
    bad = {"success": rows["success"].isna() & (not judging.measures)}
    bad["refused"] = rows["refused"].isna() & judging.tells_refusals
    bad["score"] = ~np.isfinite(rows["score"]) & (judging.measures or judging.rewards)
    for column, wrong in bad.items():
        if wrong.any():
            first = rows[wrong].iloc[0]
            raise JudgeError(
                f"{path}: column {column}: {first[column]} for {wrong.sum()} outputs, first {first['method']}, budget "
                f"{first['budget']}, prompt {first['prompt_id']}; correct the judge, or what it reads"
            )


@dataclass
class _Loaded:
    """The models of a job, each loaded when it is first asked for (saffron.judges.base.Models)."""

    job: JudgeJob
    layout: Layout
    models: dict[Path, Any]

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of all models."""
        from saffron import models

        return models.load_tokenizer(self.layout.tokenizer)

    @cached_property
    def formats(self) -> Any:
        """The chat formats of all models."""
        from saffron.chat import ChatFormats

        return ChatFormats.load(self.layout.tokenizer)

    def lm(self, name: str) -> Any:
        """A model that the models stage made."""
        return self._load(self.layout.model(name, self.job.seed))

    def checkpoint(self, file: HubFile) -> Any:
        """A model from the hub or a folder, of the guard's vocabulary and chat format."""
        from saffron.models import hub

        return self._load(hub.checkpoint(file, f"judges.{self.job.judge}.settings.checkpoint", self.layout))

    def _load(self, folder: Path) -> Any:
        from saffron import models

        if folder not in self.models:
            assert self.job.runtime is not None  # as of every job whose kind loads models
            self.models[folder] = models.load_lm(folder, self.job.runtime, device_map=self.job.device_map)
        return self.models[folder]
