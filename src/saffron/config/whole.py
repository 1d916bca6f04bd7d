"""The whole config, and what has to hold between its sections."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from saffron.config.analysis import Analysis, Report
from saffron.config.judges import COLUMNS, Judge
from saffron.config.models import Models
from saffron.config.mrm import MRM
from saffron.config.runtime import Runtime
from saffron.config.safety4m import Safety4M
from saffron.config.search import Search, are_seeds
from saffron.config.sources import Sources
from saffron.judges.discovery import kind
from saffron.methods.discovery import method
from saffron.section import Section


class Config(Section):
    """A whole replication."""

    name: str = Field(
        ..., pattern=r"^[a-z0-9][a-z0-9-]*$", description="name of the config; results go to data/<name> and figures/<name>"
    )
    train_seeds: Annotated[list[int], Field(min_length=1)] = Field([0], description="seeds of every trained model")
    runtime: Runtime = Field(default_factory=Runtime, description="how numbers are computed")
    sources: Sources = Field(..., description="conversations and attack prompts")
    models: Models = Field(..., description="policy and guard")
    safety4m: Safety4M = Field(..., description="token-level rewards")
    mrm: MRM = Field(..., description="the multifurcation reward model")
    search: Search = Field(..., description="searches")
    judges: Annotated[list[Judge], Field(min_length=1)] = Field(
        default_factory=lambda: [Judge(name="guard", kind="guard")],
        description="who judges stored outputs: the first decides attack success, the others stand beside it in every table",
    )
    analysis: Analysis = Field(default_factory=Analysis, description="statistics")
    report: Report = Field(default_factory=Report, description="the report")

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if name == "reference":
            raise ValueError("data/reference holds published numbers; take another name")
        return name

    @field_validator("train_seeds")
    @classmethod
    def _train_seeds_differ(cls, seeds: list[int]) -> list[int]:
        if not are_seeds(seeds):
            raise ValueError("training seeds must be 0 or more and differ")
        return seeds

    @field_validator("judges")
    @classmethod
    def _judges_differ_and_the_first_decides(cls, judges: list[Judge]) -> list[Judge]:
        names = [judge.name for judge in judges]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{twice} stand twice: give each its own name")
        columns = [key for name in names for key in (name, f"{name}_difference", f"scaleff_{name}")]
        for judge in judges:
            if judge.name in COLUMNS or columns.count(judge.name) > 1:
                raise ValueError(f"a table has a column {judge.name}: give judge {judge.name} another name")
        if judges[0].experiments is not None:
            raise ValueError(f"the first decides attack success everywhere: take the experiments of {names[0]} out")
        return judges

    @model_validator(mode="after")
    def _judges_have_what_they_read(self) -> Config:
        for judge in self.judges:
            unknown = sorted(set(judge.experiments or ()) - set(self.search.experiments))
            if unknown:
                raise ValueError(f"judges: {judge.name} judges {unknown}, which search.experiments does not define")
            if kind(judge.kind).knows_truth and (foreign := self._not_of_the_sandbox(judge)):
                raise ValueError(
                    f"judges: {judge.name} ({judge.kind}) knows the sandbox's world alone, prompt set {foreign} is not of it; "
                    f"{self._remedy_for_truth(judge)}"
                )
            made = self.models.hub is None or self.models.hub.other_guard is not None
            if self.models.origin == "hub" and not made and "other_guard" in kind(judge.kind).reads(judge.settings_of_kind):
                raise ValueError(
                    f"judges: {judge.name}: there is no other guard; name one in settings.checkpoint, or say in "
                    "models.hub.other_guard how to train it"
                )
        return self

    def _not_of_the_sandbox(self, judge: Judge) -> str | None:
        """The first prompt set that a judge reads answers to and that is not the sandbox's."""
        judged = judge.experiments or self.search.experiments
        sets = {self.search.experiments[name].dataset for name in judged} & set(self.sources.prompts)
        return next((name for name in sorted(sets) if self.sources.prompts[name].origin != "sandbox"), None)

    def _remedy_for_truth(self, judge: Judge) -> str:
        """What to write where a judge that knows the sandbox's truth reads answers to other prompts."""
        items, sets = self.search.experiments.items(), self.sources.prompts
        its = [name for name, item in items if item.dataset in sets and sets[item.dataset].origin == "sandbox"]
        if not its:
            return "no experiment is run on the sandbox's prompts, so remove the judge"
        limited = f"limit it to those that are: experiments: [{', '.join(its)}] (shown with `make ablations`)"
        return f"put another judge first, which decides, and {limited}" if judge is self.judges[0] else f"{limited}, or remove it"

    @model_validator(mode="after")
    def _prompt_sets_exist(self) -> Config:
        for name, experiment in self.search.experiments.items():
            if experiment.dataset not in self.sources.prompts:
                raise ValueError(
                    f"search.experiments.{name}.dataset: no prompt set {experiment.dataset}; sources.prompts has "
                    f"{', '.join(self.sources.prompts)}"
                )
            attacked = [run.key for run in experiment.runs if run.attack]
            if self.sources.is_benign(experiment.dataset) and attacked:
                raise ValueError(
                    f"search.experiments.{name}: benign prompts have no answer to prefill; set attack: false for {attacked}"
                )
        return self

    @model_validator(mode="after")
    def _sandbox_models_have_a_world(self) -> Config:
        if self.models.origin == "sandbox" and self.sources.sandbox is None:
            raise ValueError("models.from is sandbox, whose models learn from its world: add the section sources.sandbox")
        return self

    @model_validator(mode="after")
    def _answers_can_be_attacked(self) -> Config:
        if self.safety4m.on_policy_share > 0 and self.search.prefill_tokens == 0:
            raise ValueError(
                "safety4m.on_policy_share: search.prefill_tokens is 0, so that no answer is attacked; raise it, or leave the "
                "share at 0"
            )
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> Config:
        for name, experiment in self.search.experiments.items():
            for run in experiment.runs:
                if run.policy == "deepalign" and self.models.origin == "hub":
                    raise ValueError(
                        f"search.experiments.{name}: run {run.key} needs the DeepAlign policy, which only the sandbox trains: "
                        "the paper's has another tokenizer than the guard; remove the run"
                    )
                for variant in method(run.method).mrms(self.search.settings_of(run)):
                    if variant not in self.mrm.variants:
                        raise ValueError(
                            f"search.experiments.{name}: run {run.key} uses the MRM {variant}, which mrm.variants does not define"
                        )
        for name, ablation in self.analysis.ablations.items():
            holding = self.search.experiments.get(ablation.experiment)
            known = [run.key for run in holding.runs] if holding else []
            unknown = [key for key in ablation.runs if key not in known]
            if unknown:
                raise ValueError(f"analysis.ablations.{name}: search.experiments.{ablation.experiment} has no runs {unknown}")
        return self
