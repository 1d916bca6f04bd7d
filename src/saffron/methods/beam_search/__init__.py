"""PRM beam search (Table 1): each beam node proposes its K most likely tokens, the PRM scores each, the best W stay."""

from __future__ import annotations

from pydantic import Field

from saffron.methods.base import Exploration, Method, Restrained, Rewarded, Size
from saffron.methods.cost import beam


class Settings(Restrained, Rewarded):
    """Each beam node proposes its most likely tokens, the PRM scores each, the best stay (Table 1)."""

    children: int = Field(2, ge=1, description="most likely next tokens proposed by each beam node")


def cost(settings: Settings, size: Size) -> tuple[float, float]:
    """Every node's children are read by the PRM."""
    return beam(size, settings.children)


METHOD = Method(
    settings=Settings,
    search="saffron.methods.beam_search.search:search",
    label="Beam search",
    order=40,
    colour="#E69F00",
    marker="v",
    budget="width",
    reads=lambda settings: frozenset({"policy", "guard"}),
    cost=cost,
    exploration=Exploration(knob="children", limit_ratio=500 / 122.12, name_in_paper="beam_search"),
)
