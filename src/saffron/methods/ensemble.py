"""Settings of ensembles of multifurcation reward models; what they do: :mod:`saffron.methods.multifurcation`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from saffron.methods.base import Rewarded


class Ensemble(Rewarded):
    """Settings of every method whose reward is that of several MRMs of one guard (Coste et al. 2024, arXiv 2310.02743)."""

    mrm: str = Field("default", description="name in mrm.variants of the ensemble's first MRM")
    others: list[str] = Field(
        default_factory=list,
        description="names in mrm.variants of its other MRMs, which differ in mrm.variants.<name>.draw, say; each is read as "
        "often as the first and counts as much",
    )
    aggregation: Literal["mean", "worst", "uncertainty"] = Field(
        "worst",
        description="one reward of many: their mean; the least (worst-case optimisation, WCO); or their mean less "
        "variance_weight times their variance (uncertainty-weighted optimisation, UWO)",
    )
    variance_weight: float = Field(0.5, ge=0, description="lambda, weight of the variance where aggregation is uncertainty")

    @model_validator(mode="after")
    def _members_differ(self) -> Ensemble:
        names = [self.mrm, *self.others]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"MRMs {twice} stand twice in the ensemble: name each once, in mrm or in others")
        return self

    @property
    def members(self) -> int:
        """Number of MRMs."""
        return 1 + len(self.others)
