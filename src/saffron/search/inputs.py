"""What a search reads: prompts under attack as token ids, and the models, loaded once and only when needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from saffron import models, records
from saffron.chat import ChatFormats
from saffron.jobs import SearchJob
from saffron.layout import Layout
from saffron.methods.base import Model, Rewarded, SearchModels, SearchPrompt
from saffron.methods.discovery import method
from saffron.models import sense
from saffron.search import experiments


@dataclass(frozen=True)
class AttackedPrompt:
    """A prompt and the beginning that the attack forces on its response (empty without attack)."""

    prompt_id: int
    text: str
    prefill_ids: list[int]
    search: SearchPrompt


class Loaded:
    """Models that several runs of one process read, each loaded once; of MRMs those of the last run alone stay."""

    def __init__(self) -> None:
        self._models: dict[Path, Any] = {}

    def lm(self, folder: Path, load: Callable[[Path], Any]) -> Any:
        """The model in ``folder``."""
        if folder not in self._models:
            self._models[folder] = load(folder)
        return self._models[folder]

    def mrms(self, folders: Sequence[Path], load: Callable[[Path], Any]) -> list[Any]:
        """The MRMs in these folders, each with its unseen tokens; others are let go first."""
        kept = {folder.parent for folder in folders}
        for other in [path for path in self._models if path.parent in kept and path not in folders]:
            del self._models[other]
        return [self.lm(folder, load) for folder in folders]


@dataclass(frozen=True)
class Inputs:
    """Everything one run reads.

    Args:
        job: the run.
        layout: where its files lie.
        loaded: shared by the runs of one process.
        also: models that are read beside those of the method.
    """

    job: SearchJob
    layout: Layout
    loaded: Loaded = field(default_factory=Loaded)
    also: frozenset[Model] = frozenset()

    @cached_property
    def settings(self) -> Any:
        """The method's settings."""
        return method(self.job.method).settings.model_validate(self.job.settings)

    @cached_property
    def reads(self) -> frozenset[Model]:
        """The models that the run reads."""
        return frozenset({"policy", *method(self.job.method).reads(self.settings), *self.also})

    @property
    def files(self) -> list[Path]:
        """All files and folders the run reads, and no other: its blocks stay as they are whatever becomes of another model."""
        job = self.job
        mrms = [self.layout.mrm(job.seed, name) for name in job.mrms]
        return [
            self.layout.prompts(job.dataset),
            self.layout.tokenizer,
            self.layout.model(job.policy, job.seed),
            *([self.layout.model("guard", job.seed)] if "guard" in self.reads else []),
            *(mrm / part for mrm in mrms for part in ("merged", models.HEAD)),
        ]

    @cached_property
    def device(self) -> torch.device:
        """Where the models run."""
        return models.device_of(self.job.runtime)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of all models."""
        return models.load_tokenizer(self.layout.tokenizer)

    @cached_property
    def formats(self) -> ChatFormats:
        """The chat formats of all models."""
        return ChatFormats.load(self.layout.tokenizer)

    @cached_property
    def models(self) -> SearchModels:
        """Those that the run reads.

        Raises:
            ModelError: if a model is missing or cannot be read, or what it says cannot be right.
        """
        job, guard = self.job, None
        load_mrm = partial(models.load_mrm, runtime=job.runtime, device_map=job.device_map)
        mrms = self.loaded.mrms([self.layout.mrm(job.seed, name) for name in job.mrms], load_mrm)
        mrm, unseen = mrms[0] if mrms else (None, None)  # the same tokens are unseen to all, which learnt from the same labels
        if "guard" in self.reads:
            guard = self.loaded.lm(self.layout.model("guard", job.seed), partial(self._load, sense.check_guard))
        return SearchModels(
            policy=self.loaded.lm(self.layout.model(job.policy, job.seed), partial(self._load, sense.check_policy)),
            guard=guard,
            formats=self.formats,
            mrm=mrm,
            unseen=None if unseen is None else unseen.to(self.device),
            others=tuple(other for other, _ in mrms[1:]),
        )

    def _load(self, check: Callable[[Any, ChatFormats, Any, Path], None], folder: Path) -> Any:
        """A model, once it has been seen to make sense."""
        model = models.load_lm(folder, runtime=self.job.runtime, device_map=self.job.device_map)
        check(model, self.formats, self.tokenizer, folder)
        return model

    @cached_property
    def prompts(self) -> list[AttackedPrompt]:
        """The experiment's prompts, by id.

        Raises:
            RecordError: if the prompt set is missing or malformed, or a prompt that is to be attacked has no reference answer.
        """
        table = experiments.prompts(self.layout, self.job)
        empty = table["reference"].fillna("").str.strip() == ""
        if self.job.attack and self.job.prefill_tokens and empty.any():
            first = table.loc[empty, "prompt_id"].iloc[0]
            path = self.layout.prompts(self.job.dataset)
            raise records.RecordError(
                f"{path}: column reference: prompt {first} has no answer to prefill; set attack: false for run {self.job.run}"
            )
        return [self._attacked(*row) for row in table[["prompt_id", "prompt", "reference"]].itertuples(index=False)]

    def _attacked(self, prompt_id: int, text: str, reference: str | None) -> AttackedPrompt:
        (ids,) = self.formats.encode(self.tokenizer, [text])
        prefill: list[int] = []
        if self.job.attack and reference is not None:
            prefill = self.formats.encode(self.tokenizer, [reference])[0][: self.job.prefill_tokens]
        rewarded = prefill if isinstance(self.settings, Rewarded) and self.settings.reward_reads_prefill else []
        prompt = SearchPrompt(
            prompt_id=int(prompt_id),
            policy_ids=self.formats.policy.prompt(ids) + prefill,
            guard_ids=self.formats.guard.prompt(ids) + rewarded,
            mrm_ids=self.formats.mrm.prompt(ids) + rewarded,
        )
        return AttackedPrompt(int(prompt_id), text, prefill, prompt)

    def decode(self, ids: list[int]) -> str:
        """Ids as text, special tokens left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
