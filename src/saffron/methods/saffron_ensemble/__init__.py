"""Saffron-1 with an ensemble of multifurcation reward models in place of one (arXiv 2310.02743)."""

from __future__ import annotations

from dataclasses import replace

from pydantic import model_validator

from saffron.methods import saffron
from saffron.methods.base import Method, Size
from saffron.methods.ensemble import Ensemble


class Settings(Ensemble, saffron.Settings):
    """Search guided by several MRMs of one guard (arXiv 2310.02743)."""

    @model_validator(mode="after")
    def _scored_by_mrms(self) -> Settings:
        if self.scorer != "mrm":
            raise ValueError("scorer: an ensemble is one of MRMs; leave it at mrm, or use the method saffron")
        return self


def cost(settings: Settings, size: Size) -> tuple[float, float]:
    """Saffron-1's, with every call made of every member."""
    alone = size if size.calls is None else replace(size, calls=size.calls / settings.members)
    policy, reward = saffron.cost(settings, alone)
    return policy, settings.members * reward


METHOD = Method(
    settings=Settings,
    search="saffron.methods.saffron_ensemble.search:search",
    label="Saffron-1, ensemble",
    order=65,
    colour="#56B4E9",
    marker="p",
    budget="width",
    reads=saffron.reads,
    cost=cost,
    loaded_in_paper=saffron.METHOD.loaded_in_paper,  # with one member; each other adds one
    loaded_in_release=saffron.METHOD.loaded_in_release,
    may_lack_reward=saffron.METHOD.may_lack_reward,
)
