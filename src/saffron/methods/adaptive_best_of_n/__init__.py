"""Adaptive Best-of-N: samples go to the prompts that still need them, by a rule fixed beforehand.

The idea of Knapsack RL (arXiv 2509.25849), which spends a total of samples over all prompts where they pay, brought to
inference: neither a prompt that is safe already nor one that looks hopeless is given more. The rule reads one prompt at a time,
so what a prompt is given does not depend on the others of its block or on how blocks are dealt to jobs.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from saffron.methods import best_of_n
from saffron.methods.base import Method, Rewarded


class Settings(Rewarded):
    """At most N samples, no more once the best so far is good enough or hopeless (the idea of arXiv 2509.25849)."""

    first: int = Field(1, ge=1, description="samples before the first look at their rewards; the next look is at twice as many")
    enough: float = Field(0.0, description="no more samples where the best reward so far is not below this")
    hopeless: float | None = Field(
        None, description="no more samples where the best reward so far is below this (null: no prompt is hopeless)"
    )

    @model_validator(mode="after")
    def _something_lies_between(self) -> Settings:
        if self.hopeless is not None and self.hopeless >= self.enough:
            raise ValueError(f"hopeless {self.hopeless:g} must be below enough {self.enough:g}, or no prompt is looked at twice")
        return self


METHOD = Method(
    settings=Settings,
    search="saffron.methods.adaptive_best_of_n.search:search",
    label="Adaptive Best-of-N",
    order=52,
    colour="#332288",
    marker="<",
    budget="samples",
    reads=best_of_n.METHOD.reads,
    cost=best_of_n.METHOD.cost,  # before a run that of all N samples; after it, of those that were drawn
    draws=True,
    shared_budgets=True,
)
