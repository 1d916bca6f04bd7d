"""Running the methods of an experiment: blocks of prompts, shards of blocks, one table.

Prompts are cut into fixed blocks and a batch never crosses one, so results do not depend on jobs or shards. Each finished
block is kept under a key of everything it depends on; a run that was killed goes on where it stopped, and a block that no
longer fits what it depends on is never used.

In a matched experiment a method runs at one of its budgets only: the largest whose mean nominal compute is within the
tolerance of the reference method's. Budgets are tried on the first block, then measured in full; what the outputs are worth
is not read.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from saffron import records
from saffron.config import as_dict
from saffron.engine.compute import ModelShape
from saffron.fingerprint import fingerprint
from saffron.jobs import SearchJob, beside
from saffron.layout import Layout
from saffron.methods import discovery
from saffron.methods.base import Block, Result, SearchPrompt
from saffron.methods.random import RandomKey
from saffron.models import device, require_finite
from saffron.search import checking, experiments
from saffron.search.inputs import AttackedPrompt, Inputs, Loaded

log = logging.getLogger(__name__)

#: How far above the tolerance a budget may look on the first block and still be measured in full.
PROBE_SLACK = 1.1


def run(job: SearchJob, layout: Layout, shard: int, loaded: Loaded | None = None) -> None:
    """Search one shard of one run and write ``layout.search_run``; the job is written beside it.

    In a matched experiment the run that this one is matched to has to be there; the ratio reached is written to
    ``<run>.match.json`` (with several shards: by :mod:`saffron.search.gathering`, as only then all prompts have been searched).

    Raises:
        RecordError: if something it reads is missing or not what it should be.
        ModelError: if a model's rewards are not finite, or cannot be right.
        MethodError: if a method returned something else than was asked for.
    """
    blocks = _Blocks.of(job, layout, loaded)
    mine = blocks.of_shard(shard)
    if job.reference is None:
        table = blocks.search(job.budgets, mine)
    else:
        matching = _Matching(blocks)
        budget = matching.probe()
        if job.shards == 1:
            budget = matching.accept(budget)
            matching.record()
        table = blocks.search([budget], mine)
    path = layout.search_run(job.seed, job.experiment, job.run, shard)
    records.write_json(beside(path), as_dict(job))
    batches = blocks.batch_sizes(mine)
    if batches:
        records.write_json(_beside(path, "batches.json"), {"device": device.name(blocks.inputs.device), "batch_sizes": batches})
    records.write_table(path, table, records.SEARCH)


def run_all(jobs: Sequence[SearchJob], layout: Layout) -> None:
    """Search every shard of some runs in their order; each model is loaded once (:func:`run`)."""
    loaded = Loaded()
    for job in jobs:
        for shard in range(job.shards):
            run(job, layout, shard, loaded)


def match_fully(job: SearchJob, layout: Layout, largest: int) -> pd.DataFrame:
    """All rows of a matched run at its budget, which is known once every shard has searched ``largest`` (:func:`run`).

    A smaller budget is searched here if that one turns out to be above the tolerance; writes ``<run>.match.json``.
    """
    blocks = _Blocks.of(job, layout)
    matching = _Matching(blocks)
    budget = matching.accept(largest)
    matching.record()
    return blocks.search([budget], range(len(blocks.blocks)))


def _beside(path: Path, ending: str) -> Path:
    """A file beside a table: ``<table>.<ending>`` in place of its suffix."""
    return path.with_name(f"{path.stem}.{ending}")


# -------------------------------------------------------------------------------------------------------------- one run
@dataclass
class _Blocks:
    """The blocks of one run."""

    job: SearchJob
    layout: Layout
    inputs: Inputs
    batch: int | None = None  # largest batch that fits the GPU, once one did not

    @classmethod
    def of(cls, job: SearchJob, layout: Layout, loaded: Loaded | None = None) -> _Blocks:
        torch.set_num_threads(job.runtime.torch_threads)
        return cls(job, layout, Inputs(job, layout, loaded or Loaded()))

    @property
    def name(self) -> str:
        return f"{self.job.experiment}/{self.job.run}"

    @cached_property
    def prompts(self) -> list[AttackedPrompt]:
        return self.inputs.prompts

    @cached_property
    def blocks(self) -> list[list[AttackedPrompt]]:
        size = self.job.block_size
        return [self.prompts[start : start + size] for start in range(0, len(self.prompts), size)]

    def of_shard(self, shard: int) -> list[int]:
        """Indices of a shard's blocks."""
        return [index for index in range(len(self.blocks)) if index % self.job.shards == shard]

    @cached_property
    def folder(self) -> Path:
        """Where finished blocks are kept; blocks of the same run under another key are removed."""
        job = self.job
        key = fingerprint([job.key, self.inputs.device.type], self.inputs.files)
        blocks = self.layout.search_run(job.seed, job.experiment, job.run, 0).parent / ".blocks"
        folder = blocks / f"{job.run}-{key}"
        for other in blocks.glob(f"{job.run}-*"):
            if other != folder and len(other.name) == len(folder.name):
                shutil.rmtree(other, ignore_errors=True)
        return folder

    # -------------------------------------------------------------------------------------------------------- search
    def search(self, budgets: Sequence[int], blocks: Sequence[int]) -> pd.DataFrame:
        """Rows (records.SEARCH) of these blocks at these budgets and all search seeds; finished blocks are read back."""
        groups = [list(budgets)] if discovery.method(self.job.method).shared_budgets else [[budget] for budget in budgets]
        work = [(seed, index, group) for group in groups for seed in self.job.search_seeds for index in blocks]
        tables = [self._block(*unit) for unit in tqdm(work, desc=self.name, unit="block", mininterval=5)]
        if not tables:
            return pd.DataFrame(columns=records.SEARCH.names)
        order = [column for column in experiments.ROW_ORDER if column != "run"]
        return pd.concat(tables, ignore_index=True).sort_values(order, kind="stable", ignore_index=True)

    def _block_path(self, search_seed: int, index: int, budgets: Sequence[int]) -> Path:
        return self.folder / f"seed{search_seed}.block{index}.budget{'-'.join(map(str, budgets))}.parquet"

    def _block(self, search_seed: int, index: int, budgets: list[int]) -> pd.DataFrame:
        path = self._block_path(search_seed, index, budgets)
        if path.exists():
            return records.read_table(path, records.SEARCH)
        key = RandomKey(self.job.dataset, search_seed)
        prompts = self.blocks[index]
        results = self._results([prompt.search for prompt in prompts], budgets, key)
        if self.inputs.device.type == "cuda" or self.batch is not None:
            records.write_json(_beside(path, "json"), {"batch_size": min(self.batch or len(prompts), len(prompts))})
        rows = [row for budget in budgets for row in self._rows(prompts, results[budget], search_seed)]
        records.write_table(path, rows, records.SEARCH)
        return records.read_table(path, records.SEARCH)

    def _results(self, prompts: list[SearchPrompt], budgets: list[int], key: RandomKey) -> dict[int, list[Result]]:
        """Results by budget, prompts in order; batches are halved for as long as the GPU's memory does not hold one."""
        name, limit, models, settings = self.job.method, self.job.max_new_tokens, self.inputs.models, self.inputs.settings
        method = discovery.search(name)

        def search(batch: Sequence[SearchPrompt]) -> list[dict[int, Result]]:
            results = method(Block(models, batch, key, limit), settings, budgets)
            return checking.by_prompt(
                name,
                results,
                batch,
                budgets,
                new_tokens=limit,
                vocabulary=models.policy.config.vocab_size,
                eos_id=models.formats.eos_id,
                needs_reward=not discovery.method(name).may_lack_reward(settings),
            )

        size = self.batch or self._fitting(prompts, max(budgets))
        found, size = device.in_batches(search, prompts, size, what=f"the budgets of {self.name}")
        if size < len(prompts):
            self.batch = size
        return {budget: [results[budget] for results in found] for budget in budgets}

    def _fitting(self, prompts: list[SearchPrompt], budget: int) -> int:
        """Prompts of a block that the free memory of the GPU is expected to hold at once; all of them on a CPU."""
        models = self.inputs.models  # first, since what they take is not free
        loaded = [model for model in (models.policy, models.guard, models.mrm, *models.others) if model is not None]
        free = device.free_bytes(self.inputs.device)
        if free is None:
            return len(prompts)
        longest = max(len(ids) for prompt in prompts for ids in (prompt.policy_ids, prompt.guard_ids, prompt.mrm_ids))
        needed = device.search_bytes(
            [ModelShape.from_config(model.config) for model in loaded],
            max(1, budget),
            self.job.max_new_tokens,
            longest,
            loaded[0].dtype,
        )
        return device.batch_size(len(prompts), needed, free)

    def _rows(self, prompts: list[AttackedPrompt], results: list[Result], search_seed: int) -> list[dict[str, Any]]:
        """One row per prompt: the result and its text."""
        self._check_finite(prompts, results)
        rows = []
        for prompt, result in zip(prompts, results, strict=True):
            rows.append(
                {
                    "dataset": self.job.dataset,
                    "prompt_id": prompt.prompt_id,
                    "method": self.job.method,
                    "budget": result.budget,
                    "settings_id": self.job.settings_id,
                    "train_seed": self.job.seed,
                    "search_seed": search_seed,
                    "prefill_ids": prompt.prefill_ids,
                    "output_ids": result.output_ids,
                    "response": self.inputs.decode([*prompt.prefill_ids, *result.output_ids]),
                    "text": self.inputs.decode(result.output_ids),
                    "reward": result.reward,
                    "finished": result.finished,
                    "n_new_tokens": len(result.output_ids),
                    "flops_policy": result.flops_policy,
                    "flops_reward": result.flops_reward,
                    "flops_executed_policy": result.flops_executed_policy,
                    "flops_executed_reward": result.flops_executed_reward,
                    "reward_calls": result.reward_calls,
                }
            )
        return rows

    def _check_finite(self, prompts: list[AttackedPrompt], results: list[Result]) -> None:
        """Refuse a method's own rewards that are not finite; the model is the last of policy, guard and MRM that it reads."""
        job, layout = self.job, self.layout
        own = layout.model("guard" if "guard" in self.inputs.reads else job.policy, job.seed)
        if job.mrm is not None:
            own = layout.mrm(job.seed, job.mrm)
        for prompt, result in zip(prompts, results, strict=True):
            if result.reward is not None:
                output = f"{self.name} at budget {result.budget} on prompt {prompt.prompt_id} of {job.dataset}"
                require_finite([result.reward], f"{output}, its own,", own)

    def batch_sizes(self, blocks: Sequence[int]) -> dict[str, int]:
        """Batch sizes noted with this run's finished blocks, by block (none on a CPU)."""
        mine = {f"block{index}" for index in blocks}
        paths = sorted(self.folder.glob("*.json"))
        return {
            path.stem: records.read_json(path, ("batch_size",))["batch_size"] for path in paths if path.stem.split(".")[1] in mine
        }


# ------------------------------------------------------------------------------------------------------ matched budgets
class _Matching:
    """The search for a run's matched budget."""

    def __init__(self, blocks: _Blocks) -> None:
        job = blocks.job
        assert job.match is not None and job.reference is not None
        self.blocks, self.job, self.match = blocks, job, job.match
        paths = [blocks.layout.search_run(job.seed, job.experiment, job.reference, shard) for shard in range(job.shards)]
        self.reference = pd.concat([records.read_table(path, records.SEARCH) for path in paths], ignore_index=True)
        self.reference_compute = self._compute(self.reference, job.match.method)
        self.tried: dict[int, float] = {}  # ratio in full, by budget
        self.accepted: int | None = None

    def _compute(self, rows: pd.DataFrame, method: str) -> float:
        """Mean nominal FLOPs per prompt under the convention."""
        factor = discovery.method(method).multiplier() if self.match.convention == "per_model" else 1
        return factor * float((rows["flops_policy"] + rows["flops_reward"]).mean())

    def probe(self) -> int:
        """The largest budget that may be within the tolerance, judged by the first block; the smallest if none may."""
        blocks, seeds, budgets = self.blocks, self.job.search_seeds, self.job.budgets
        if len(budgets) == 1:
            return budgets[0]
        first = {prompt.prompt_id for prompt in blocks.blocks[0]}
        limit = self.match.tolerance * PROBE_SLACK
        rows = self.reference[self.reference["prompt_id"].isin(first) & self.reference["search_seed"].isin(seeds)]
        reference = self._compute(rows, self.match.method)
        chosen = budgets[0]
        for budget in budgets:
            if self._compute(blocks.search([budget], [0]), self.job.method) > limit * reference:
                break  # compute grows with the budget
            chosen = budget
        return chosen

    def accept(self, budget: int) -> int:
        """Step down from ``budget`` until the mean compute over all prompts is within the tolerance."""
        blocks, job = self.blocks, self.job
        for candidate in [value for value in reversed(job.budgets) if value <= budget]:
            rows = blocks.search([candidate], range(len(blocks.blocks)))
            self.tried[candidate] = self._compute(rows, job.method) / self.reference_compute
            self.accepted = candidate
            if self.tried[candidate] <= self.match.tolerance:
                break
        assert self.accepted is not None
        return self.accepted

    def record(self) -> None:
        """Print the ratio reached and write ``<run>.match.json``."""
        job, match = self.job, self.match
        assert self.accepted is not None
        ratio = self.tried[self.accepted]
        within = ratio <= match.tolerance
        print(f"{job.experiment}: {job.run} at {self.accepted} computes {ratio:.3f} x {match.method} at {match.budget}")
        if not within:
            log.warning("%s: even the smallest budget of %s is above %.2f", job.experiment, job.run, match.tolerance)
        path = self.blocks.layout.search_run(job.seed, job.experiment, job.run, 0)
        record = {
            "method": job.method,
            "settings_id": job.settings_id,
            "budget": self.accepted,
            "ratio": ratio,
            "within_tolerance": within,
            "flops": ratio * self.reference_compute,
            "match": {**as_dict(match), "flops": self.reference_compute},
            "tried": {str(budget): value for budget, value in self.tried.items()},
        }
        records.write_json(path.with_name(f"{job.run}.match.json"), record)
