"""What is searched: methods, experiments and their runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    create_model,
    field_serializer,
    model_validator,
)

from saffron import roles
from saffron.config.base import Convention, remedy
from saffron.methods.discovery import MethodError, method, methods, require_search
from saffron.roles import Role
from saffron.section import Section

#: Settings of every search method that is found (saffron.methods), by name.
SETTINGS: dict[str, Any] = {
    name: (found.settings, Field(default_factory=found.settings, description=found.summary)) for name, found in methods().items()
}
if TYPE_CHECKING:
    MethodName = str

    class Methods(Section):
        """Default settings of every search method."""
else:
    MethodName = Literal[tuple(methods())]
    Methods = create_model("Methods", __base__=Section, __doc__="Default settings of every search method.", **SETTINGS)


#: Far above any budget that can be searched; what lies above it is a slip of the pen.
LARGEST_BUDGET = 100_000


class Run(Section):
    """One method at some budgets within an experiment: one Snakemake job per shard."""

    method: MethodName = Field(..., description="search method")
    budgets: Annotated[list[int], Field(min_length=1)] = Field(
        ..., description="samples or width, as the method says; 0 without any"
    )
    settings_id: str = Field("default", pattern=r"^[a-z0-9_.]+$", description="name of these settings in tables and paths")
    settings: dict[str, Any] = Field(default_factory=dict, description="what differs from search.methods.<method>")
    policy: Literal["policy", "deepalign"] = Field("policy", description="which policy generates")
    attack: bool = Field(True, description="prefill the response with the reference answer's first tokens")

    @model_validator(mode="after")
    def _budgets_fit(self) -> Run:
        if method(self.method).budget is None and self.budgets != [0]:
            raise ValueError(f"{self.method} searches nothing: budgets must be [0]")
        if method(self.method).budget is not None and min(self.budgets) < 1:
            raise ValueError(f"budgets of {self.method} must be 1 or more")
        if max(self.budgets) > LARGEST_BUDGET:
            raise ValueError(f"budgets of {self.method} must be at most {LARGEST_BUDGET:,}: none larger was ever finished")
        if len(set(self.budgets)) < len(self.budgets):
            raise ValueError("budgets must differ")
        return self

    @property
    def key(self) -> str:
        """Unique name of the run within its experiment, as used in paths."""
        return f"{self.method}-{self.settings_id}"


class Match(Section):
    """Choose each method's budget by compute alone."""

    method: MethodName = Field(roles.SAMPLING, description="the method whose compute is matched")
    budget: int = Field(32, ge=1, description="its budget")
    tolerance: float = Field(1.05, ge=1, description="largest allowed ratio of mean compute")
    convention: Convention = Field(
        "once", description="count FLOPs once, or per model: times the number of loaded models, as in the paper"
    )


Group = Literal["replicate", "ablations", "development"]


class Experiment(Section):
    """Runs on one dataset, stored as one table."""

    dataset: str = Field(..., description="a prompt set of sources.prompts")
    role: Role | None = Field(None, description="what figures, tables and claims take it for (null: nothing but itself)")
    runs: Annotated[list[Run], Field(min_length=1)] = Field(..., description="methods and budgets")
    prompts: int | None = Field(None, ge=1, description="only the first prompts by id (null: all)")
    match: Match | None = Field(
        None, description="run every method only at the budget matched by compute, chosen among its budgets"
    )
    seeds: Annotated[list[int], Field(min_length=1)] | None = Field(None, description="search seeds (null: search.seeds)")
    group: Group = Field("replicate", description="which target builds it")

    @model_validator(mode="after")
    def _unique_runs(self) -> Experiment:
        keys = [run.key for run in self.runs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"runs {twice} stand twice: give each its own settings_id")
        if self.match and self.match.method not in {run.method for run in self.runs}:
            raise ValueError(f"match.method {self.match.method} is not among the runs: add it")
        if self.match and self.reference and self.match.budget not in self.reference.budgets:
            raise ValueError(f"match.budget {self.match.budget} is not among the budgets of {self.reference.key}: add it")
        return self

    @property
    def reference(self) -> Run | None:
        """The run whose compute the others are matched to: the first of the method; None if nothing is matched."""
        return next((run for run in self.runs if self.match and run.method == self.match.method), None)

    def budgets_of(self, run: Run) -> list[int]:
        """Budgets a run may use, increasing."""
        return [self.match.budget] if self.match and run == self.reference else sorted(run.budgets)


def are_seeds(seeds: list[int]) -> bool:
    """Whether these can be seeds: none negative, none twice."""
    return min(seeds) >= 0 and len(set(seeds)) == len(seeds)


class Search(Section):
    """Outputs of every method, budget, dataset and seed."""

    seeds: Annotated[list[int], Field(min_length=1)] = Field([0], description="search seeds")
    prefill_tokens: int = Field(10, ge=0, description="tokens of the reference answer that the attack prefills")
    max_new_tokens: int = Field(32, ge=1, description="tokens generated after the prefill")
    block_size: int = Field(16, ge=1, description="prompts per resumable block; a batch never crosses a block")
    shards: int = Field(1, ge=1, description="independent jobs per run")
    jobs: Literal["runs", "models", "seeds"] = Field(
        "runs",
        description="one job: a shard of a run; all runs of a training seed that load the same models; all its searches",
    )
    methods: Methods = Field(default_factory=Methods, description="default settings of every method")
    experiments: Annotated[dict[str, Experiment], Field(min_length=1)] = Field(..., description="what is run, by name")

    @field_serializer("methods", mode="wrap")
    def _methods_that_matter(self, methods: Any, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without methods that no run uses and nobody set: that one is installed changes no config, so no job."""
        used = {run.method for experiment in self.__dict__.get("experiments", {}).values() for run in experiment.runs}
        chosen = {name for name, settings in methods if name in used or settings != type(settings)()}
        return {name: values for name, values in serialise(methods).items() if name in chosen}

    @model_validator(mode="after")
    def _seeds_differ(self) -> Search:
        for name, experiment in self.experiments.items():
            if not are_seeds(self.seeds_of(experiment)):
                raise ValueError(f"search seeds of experiment {name} must be 0 or more and differ")
        return self

    @model_validator(mode="after")
    def _roles_are_whole(self) -> Search:
        found = roles.problems(self)
        if found:
            raise ValueError("; ".join(f"experiments.{line}" for line in found))
        return self

    @model_validator(mode="after")
    def _something_is_replicated(self) -> Search:
        if all(item.group != "replicate" for item in self.experiments.values()):
            raise ValueError("experiments: none is part of `make replicate`, which then has no results; leave group out of one")
        return self

    @model_validator(mode="after")
    def _names_are_parts_of_paths(self) -> Search:
        for name in self.experiments:
            if not re.fullmatch(r"[a-zA-Z0-9_]+", name):
                raise ValueError(f"experiments: {name!r} is no name of a file; take letters, digits and _ alone")
        return self

    @model_validator(mode="after")
    def _settings_are_valid(self) -> Search:
        for name, experiment in self.experiments.items():
            for run in experiment.runs:
                try:
                    require_search(run.method)
                except MethodError as error:
                    raise ValueError(f"experiments.{name}.runs[{run.key}]: {error}") from None
                try:
                    self.settings_of(run)
                except ValidationError as error:
                    first = error.errors()[0]
                    raise ValueError(
                        f"experiments.{name}.runs[{run.key}].settings.{'.'.join(map(str, first['loc']))}: {remedy(first)}"
                    ) from None
        return self

    def seeds_of(self, experiment: Experiment) -> list[int]:
        """Search seeds of an experiment: its own, else everyone's."""
        return experiment.seeds or self.seeds

    def defaults(self, method: str) -> Section:
        """Settings of a method in every run that says nothing else."""
        return getattr(self.methods, method)

    def settings_of(self, run: Run) -> Section:
        """Settings of a run: its method's defaults with the run's own merged over them."""
        defaults = self.defaults(run.method)
        return type(defaults).model_validate({**defaults.model_dump(), **run.settings})
